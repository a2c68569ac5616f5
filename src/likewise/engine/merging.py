"""Whether rows of different requests may share a batch, and who decided that; kept in the manifest's measurements."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from likewise.bundles.format import Manifest
from likewise.engine.code_free import PYFUNC, flavor_of, handwritten
from likewise.engine.kinds import ModelFacts

Source = Literal["user", "model", "contract", "refuted", "untried", "unknown"]
OWN_ROW = "if each prediction depends only on its own row, bundle with --row-wise"
ACCELERATE = "what its code loads with transformers runs several times faster if it is bundled with --accelerate"


@dataclass(frozen=True, slots=True)
class Rows:
    """Whether rows are independent.

    source: `user` or `model`, which declared it; `contract`, of the model's flavour; `refuted` on the example;
    `untried`, because there is no example and the model has its own code; `unknown`.  why: for people, if not merged.
    """

    independent: bool
    source: Source
    why: str = ""

    @classmethod
    def of(cls, facts: ModelFacts, given: bool | None) -> Rows:
        """As the user has given it, else as the model declares it, else by the contract of its flavour."""
        if given is not None:
            return cls(given, "user", "the bundle was built with --no-row-wise")
        if facts.row_wise is not None:
            return cls(facts.row_wise, "model", "the model's metadata declares row_wise: false")
        if facts.rows_independent():
            return cls(True, "contract")
        return cls(False, "unknown", _unknown(facts))

    @property
    def declared(self) -> bool:
        """Whether the user or the model has declared it, who must be wrong if the example refutes it."""
        return self.source in ("user", "model")

    def __str__(self) -> str:
        how = "merged" if self.independent else f"not merged, because {self.why}"
        return f"rows of different requests are {how}"

    @property
    def stored(self) -> Mapping[str, object]:
        """The entry `rows` of the manifest's measurements."""
        return {name: value for name, value in asdict(self).items() if name != "independent"}


def rows_of(manifest: Manifest) -> Rows:
    """What the bundle's builder recorded; an earlier one recorded no reason."""
    stored = manifest.measured.get("rows")
    known = stored if isinstance(stored, Mapping) else {}
    source: Source = next((each for each in get_args(Source) if each == known.get("source")), "unknown")
    return Rows(
        manifest.row_wise,
        source,
        str(known.get("why") or "neither the model nor its flavor declares that they are independent"),
    )


def describe_rows(manifest: Manifest) -> str:
    """One clause for people: whether rows of different requests share a batch, and what would help."""
    rows = rows_of(manifest)
    faster = f"; {ACCELERATE}" if _may_be_compiled(manifest) else ""
    silent = rows.independent or rows.source in ("user", "model", "refuted")
    return f"{rows}{'' if silent else f'; {OWN_ROW}'}{faster}"


def _may_be_compiled(manifest: Manifest) -> bool:
    """Whether a model whose own code runs was logged with transformers, and has not been compiled."""
    names = {re.split(r"[^\w-]", line, maxsplit=1)[0].lower() for line in manifest.environment.requirements}
    tried = "agreement" in manifest.measured or "not_compiled" in manifest.measured
    return "transformers" in names and not tried and {each.name for each in manifest.engines} == {"pyfunc"}


def _unknown(facts: ModelFacts) -> str:
    pyfunc = facts.flavors.get(PYFUNC) or {}
    loader, flavor = pyfunc.get("loader_module"), flavor_of(facts.flavors)
    if flavor is not None or (str(loader).startswith("mlflow.") and not handwritten(loader)):
        return f"the flavor {flavor or str(loader).removeprefix('mlflow.')} does not promise one prediction per row"
    return "a hand-written pyfunc may use several rows for one prediction"
