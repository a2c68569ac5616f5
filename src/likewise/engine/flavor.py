"""The engine for models whose files hold no code, so that no trust is needed: only installed libraries run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.errors import CodeNotTrusted
from likewise.engine.code_free import flavor_of, known_why_code, why_code
from likewise.engine.kinds import ModelFacts
from likewise.engine.pyfunc import PyfuncEngine, PyfuncKind
from likewise.engine.versions import flavors_of

LIBRARIES = frozenset({
    "catboost", "lightgbm", "numpy", "pandas", "safetensors", "scikit-learn", "scipy", "sentence-transformers", "skops",
    "tokenizers", "torch", "transformers", "xgboost", "xgboost-cpu",
})  # fmt: skip

TORCH = frozenset({"sentence_transformers", "transformers"})
OF_TORCH = frozenset({"safetensors", "sentence-transformers", "tokenizers", "torch", "transformers"})


class FlavorKind(PyfuncKind):
    """Runs a model of scikit-learn, XGBoost, LightGBM, CatBoost, transformers or sentence-transformers without code.

    The files are checked when the bundle is built and again whenever it is opened, because a manifest is a claim.
    """

    name = "flavor"
    runs_code = False
    library = ""

    def takes(self, model: ModelFacts) -> bool:
        """Whether the model's files exclude that loading it runs code of its author."""
        return known_why_code(model.folder) is None

    def offers(self, model: ModelFacts) -> Sequence[EngineEntry]:  # noqa: ARG002  the same for all models
        """The engine `flavor/native`."""
        return (EngineEntry(self.name, "native"),)

    def libraries(self, logged: Sequence[str]) -> Sequence[str]:
        """The logged versions of the flavours' own libraries: an author may not choose any other package.

        Without torch for models of other libraries: MLflow logs it if it was installed, since skops imports it.
        """
        of_torch = any(_distribution(line) in ("sentence-transformers", "transformers") for line in logged)
        allowed = LIBRARIES if of_torch else LIBRARIES - OF_TORCH
        return [line for line in logged if _distribution(line) in allowed]

    def in_processes(self, bundle: Bundle) -> bool:
        """For models of torch: threads of one process compute one after the other, and wait for each other's."""
        return flavor_of(flavors_of(bundle.model_path)) in TORCH

    def open(
        self, bundle: Bundle, entry: EngineEntry, model_config: Mapping[str, object] | None = None
    ) -> PyfuncEngine:
        """Load the model as `mlflow.pyfunc.load_model` does; raises CodeNotTrusted if its files may run code."""
        if (why := why_code(bundle.model_path)) is not None:
            raise CodeNotTrusted(
                f"the bundle {bundle.path} names an engine for models without code, but its model may run code: {why}",
                remedy="if you trust its author, bundle the model again with --trust",
            )
        return super().open(bundle, entry, model_config)


def _distribution(line: str) -> str:
    """The normalized name at the start of a requirement line. Source: PEP 503."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else ""
