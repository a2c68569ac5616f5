"""Whether the steps of a pipeline fit together: each gets the columns that it needs, and the last one the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from likewise.core.errors import WrongUsage
from likewise.pipeline.steps import Cache, Classify, DetectLanguage, Respond, Step

ANSWER = "answer"
_SHOWN: Mapping[type[Step], str] = {
    Cache: "Cache()",
    DetectLanguage: "DetectLanguage()",
    Classify: "Classify(MODEL_URI)",
    Respond: "Respond()",
}
BOOK = f"Pipeline({', '.join(_SHOWN.values())})"


def check_fit(steps: Sequence[Step]) -> None:
    """Raise WrongUsage for the first step that needs a column which no earlier one gives, or if none gives `answer`.

    A custom step that does not declare what it gives may give anything.
    """
    known = {"text"}
    for index, step in enumerate(steps):
        for name in ("needs", "gives"):
            _check_names(step, name)
        if missing := [column for column in step.needs if column not in known]:
            raise WrongUsage(
                f"the step {name_of(step)} needs {_columns(missing)}, which no earlier step gives",
                remedy=remedy(missing, step, known, steps[index + 1 :]),
            )
        if step.gives is None:
            return
        known.update(step.gives)
    if ANSWER not in known:
        raise WrongUsage(f"no step gives the column {ANSWER!r}", remedy=remedy([ANSWER], None, known))


def remedy(missing: Iterable[str], step: Step | None, known: Iterable[str] = (), later: Sequence[Step] = ()) -> str:
    """Which steps to put before `step`, or at the end, so that it gets the columns `missing`.

    known: the columns that the steps before it give.  later: the steps after it, which may be moved.
    """
    steps = dict.fromkeys(_givers(missing, {"text", *known}, later))
    return f"put {' and '.join(steps)} {f'before {name_of(step)}' if step else 'at the end'}"


def name_of(step: Step) -> str:
    """The name of its class."""
    return type(step).__name__


def _givers(columns: Iterable[str], known: set[str], later: Sequence[Step]) -> Iterator[str]:
    """The steps that give `columns`, preceded by those that give what these need."""
    for column in columns:
        if column in known:
            continue
        moved = next((step for step in later if column in (step.gives or ())), None)
        built_in = next((kind for kind in _SHOWN if column in (kind.gives or ())), None)
        kind = built_in if moved is None else type(moved)
        yield from () if kind is None else _givers(kind.needs, known | {column}, later)
        yield f"a custom step with gives = ({column!r},)" if kind is None else _SHOWN.get(kind, kind.__name__)


def _check_names(step: Step, name: str) -> None:
    names = getattr(step, name)
    if names is None and name == "gives":
        return
    if not isinstance(names, (tuple, list)) or not all(isinstance(each, str) for each in names):
        raise WrongUsage(
            f"{name} of the step {name_of(step)} is {names!r} instead of a tuple of names of columns",
            remedy=f'write {name} = ("label",)',
        )


def _columns(names: Sequence[str]) -> str:
    return f"the column{'s' if len(names) > 1 else ''} {' and '.join(map(repr, names))}"
