"""Does the finished bundle stand alone?  Open and ask it in a child that has no store, no network, no credentials.

On Linux the kernel takes the network and the store's folders away ("namespaces"); where it may not, and beside it, an
audit hook of Python refuses the touch by name ("audit hook").
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from likewise.builder.audit import AuditWatch
from likewise.builder.equality import same, shown
from likewise.builder.isolation import isolate_process
from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle, open_bundle
from likewise.bundles.trust import Trust
from likewise.core.engine import Engine, answers
from likewise.core.errors import LikewiseError, MissingExtra, NotSelfContained, RowWiseRefuted
from likewise.core.items import Item, Request, Row
from likewise.core.processes import die_with_parent
from likewise.core.results import Failed, Result
from likewise.engine.child import Task, carry_out, run_child
from likewise.engine.example import Example, read_example, variants
from likewise.engine.kinds import runs_code
from likewise.engine.load import open_entry

TIMEOUT = 600.0  # seconds
NO_STORE = "no-tracking-server-in-a-bundle"
_STORES = ("MLFLOW_", "AWS_", "DATABRICKS_", "AZURE_", "GOOGLE_", "GCP_", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class Proof:
    """What was tried. isolation: `namespaces` or `audit hook`. engines: labels. rows: how many were compared."""

    isolation: str
    engines: tuple[str, ...]
    rows: int


def prove(bundle: Path, *, hidden: Sequence[Path], code: bool, timeout: float = TIMEOUT) -> Proof:
    """Open the bundle in the folder `bundle` away from everything, and ask each engine that may run its example.

    hidden: where the model came from.  code: whether engines that run the model's code are tried too.
    Raises NotSelfContained, RowWiseRefuted, and what opening raises.
    """
    task = {"bundle": str(bundle.resolve()), "hidden": [str(p) for p in hidden], "code": code}
    with tempfile.TemporaryDirectory(prefix="likewise-proof-") as work:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_STORES)}
        environment |= {"MLFLOW_TRACKING_URI": f"{NO_STORE}://", "MLFLOW_REGISTRY_URI": f"{NO_STORE}://"}
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        result = run_child("likewise.builder.prove", task, Path(work), environment=environment, timeout=timeout)
    return Proof(result["isolation"], tuple(result["engines"]), result["rows"])


# --- in the child -----------------------------------------------------------------------------------------------------

Answer = Callable[[Sequence[Item]], list[Result]]


def _refuse(touch: str) -> None:
    raise PermissionError(f"the model {touch}, which is out of its reach where the bundle runs")


def _try_all(task: Task, work: Path) -> dict[str, object]:
    folder, hidden = Path(task["bundle"]), [Path(p) for p in task["hidden"]]
    python = [Path(p) for p in (sys.prefix, sys.base_prefix, *sys.path) if p and Path(p).is_dir()]
    kept = (folder, work, *dict.fromkeys(python))
    os.chdir(work)  # a working folder would stay open though its path is hidden
    isolated = isolate_process(hidden, kept)
    die_with_parent(task["parent"])
    AuditWatch(_refuse, own=kept, hidden=hidden, everywhere=False).start()
    bundle = open_bundle(folder)
    entries = [e for e in bundle.manifest.engines if task["code"] or not runs_code(e)]
    example = read_example(bundle.model_path)
    found = _answers(bundle, entries, example)
    _agree(found)
    _unchanged(folder)
    return {
        "isolation": "namespaces" if isolated else "audit hook",
        "engines": list(found),
        "rows": len(example.table) if example is not None else 0,
    }


def _answers(bundle: Bundle, entries: Sequence[EngineEntry], example: Example | None) -> dict[str, list[Result]]:
    """By engine; one whose libraries are not installed here is passed over where another can be tried."""
    found: dict[str, list[Result]] = {}
    missing: MissingExtra | None = None
    for entry in entries:
        try:
            found[f"{entry.name}/{entry.precision}"] = _try(bundle, entry, example)
        except MissingExtra as error:
            missing = missing or error
    if missing is not None and not found:
        raise missing
    return found


def _try(bundle: Bundle, entry: EngineEntry, example: Example | None) -> list[Result]:
    try:
        engine = open_entry(bundle, entry, trust=Trust(allow=True, entries=()))
    except MissingExtra:
        raise
    except LikewiseError as error:
        raise _alone(f"the engine {entry.name} does not load from the bundle alone", error) from error
    try:
        return [] if example is None else _ask(engine, example)
    finally:
        engine.close()


def _ask(engine: Engine, example: Example) -> list[Result]:
    table = example.table
    items: list[Item] = list(table.split(example.params)) if engine.spec.row_wise else [Request(table, example.params)]
    results = answers(engine, items)
    for result in results:
        if isinstance(result, Failed):
            raise _alone(f"the engine {engine.spec.label} does not answer the input example", result.error)
    if engine.spec.row_wise:
        refute_row_wise(partial(answers, engine), example)
    return results


def refute_row_wise(answer: Answer, example: Example) -> None:
    """RowWiseRefuted where a row is answered otherwise beside others than alone; silence proves nothing."""
    table = example.table
    rows: list[Item] = [Row(table.columns, values, example.params) for values in [*table.rows, *variants(table)]]
    alone = [answer([row])[0] for row in rows]
    for order in (range(len(rows)), range(len(rows) - 1, -1, -1)):
        together = answer([rows[i] for i in order])
        for i, found in zip(order, together, strict=True):
            if not same(alone[i], found):
                raise RowWiseRefuted(
                    "the model is declared row-wise, but its rows depend on their neighbours: "
                    f"the row {_values(rows[i])} alone gives {shown(alone[i])}, beside others {shown(found)}",
                    remedy="correct the model, or declare row_wise: false (likewise bundle --no-row-wise)",
                )


def _values(item: Item) -> str:
    text = repr(item.values) if isinstance(item, Row) else ""
    return text if len(text) <= 100 else text[:100] + "…"


def _agree(found: Mapping[str, list[Result]]) -> None:
    """The first engine's answers are the others' too."""
    (first, expected), *others = found.items() if found else [("", [])]
    for label, results in others:
        for row, (one, other) in enumerate(zip(expected, results, strict=True)):
            if not same(one, other):
                raise NotSelfContained(
                    f"two engines answer row {row} of the input example differently: "
                    f"{first}: {shown(one)}; {label}: {shown(other)}",
                    remedy="report this with the model: the declared pipeline and its Python code do not do the same",
                )


def _unchanged(folder: Path) -> None:
    try:
        open_bundle(folder)
    except LikewiseError as error:
        raise _alone("the model changes its own files when it runs", error) from error


def _alone(what: str, error: LikewiseError) -> NotSelfContained:
    return NotSelfContained(f"{what}: {error.cause}", remedy=error.remedy)


if __name__ == "__main__":  # python -m likewise.builder.prove TASK RESULT
    carry_out(_try_all, *sys.argv[1:])
