"""Predicts items with a compiled engine while it is built."""

from __future__ import annotations

from collections.abc import Sequence

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.engine import predict_items
from likewise.core.errors import EngineUnavailable
from likewise.core.items import Item
from likewise.core.results import Result
from likewise.engine.accelerate.calls import Calls
from likewise.engine.kinds import kind_of
from likewise.engine.openvino_graph import Arrays

PLAIN = "the model's own torch is used"
WINDOW = 16  # rows that are predicted together, as a server does


def predicted(
    bundle: Bundle,
    entry: EngineEntry,
    items: Sequence[Item],
    seen: dict[str, list[tuple[Arrays, Arrays]]] | None = None,
) -> tuple[list[Result], list[str]]:
    """Predictions in the company in which a server predicts the items, and notes for the user.

    seen: see `Calls`.  Raises EngineUnavailable if no compiled module is used.
    """
    engine = kind_of(entry.name).open(bundle, entry)
    calls = getattr(engine, "calls", None)
    assert isinstance(calls, Calls)  # noqa: S101
    calls.seen = seen
    size = WINDOW if engine.spec.row_wise else 1
    try:
        windows = (items[start : start + size] for start in range(0, len(items), size))
        results = [result for window in windows for result in predict_items(engine, window)]
    finally:
        engine.close()
    why, number = next(iter(calls.original.most_common(1)), ("", 0))
    others = calls.original.total()
    if not calls.compiled:
        raise EngineUnavailable(
            f"the compiled modules are not used, because {why or 'the model loads others each time'}", remedy=PLAIN
        )
    return results, [f"{others} of {calls.compiled + others} calls run in torch, most because {why}"] if number else []
