"""Compares Likewise with commonly used servers: same weights, same texts, alternating in one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import wrk
from bench.contenders import MLFLOW, PEERS, Contender, Dialect, contenders, environments
from bench.model import FOLDER, subject, texts
from bench.options import Options
from bench.processes import peak_of
from bench.servers import CHECKOUT, NoResponse, Server, complaints, running
from bench.serving import REVIEWS, WARMING

CHECKED = 20  # texts whose labels are compared
FIRST_TEXT = "the first text, which no measurement sends"
PADDING = "likewise_padding_efficiency"


class Labels:
    """Compares labels of a few texts with the first server's. engines: by contender, if its response names one."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.engines: dict[str, str] = {}
        self._texts = texts
        self._expected: list[str] = []

    def equal(self, server: Server, one: Contender) -> int:
        """The number of equal labels from this contender's server."""
        labels = [one.dialect.label(server.post(one.dialect.body(text))) for text in self._texts]
        self._expected = self._expected or labels
        if engine := server.header(one.dialect.body(FIRST_TEXT), "X-Likewise-Engine"):
            self.engines[one.title] = engine
        return sum(map(str.__eq__, labels, self._expected))


def peers(options: Options) -> dict[str, object]:
    """Medians by contender, errors of contenders that did not respond, and the versions of every environment."""
    wrk.require()
    names = list(options.peer or PEERS)
    compared, reviews = contenders(subject(), names), texts(REVIEWS)
    bodies = {one.dialect: _bodies(one.dialect, reviews) for one in compared}
    labels = Labels(reviews[-CHECKED:])
    taken: dict[str, list[wrk.Figures]] = {}
    errors: dict[str, str] = {}
    for _ in range(options.rounds or 3):
        for one in [one for one in compared if one.title not in errors]:
            try:
                figures = _measured(one, bodies[one.dialect], labels, options)
            except (NoResponse, OSError) as error:
                errors[one.title] = _short(str(error))
                print(f"  {one.title}: {error}", flush=True)
            else:
                print(f"  {one.title}: {figures}", flush=True)
                taken.setdefault(one.title, []).append(figures)
    return {
        "setup": {
            "connections": options.connections,
            "seconds": options.seconds or 20,
            "rounds": options.rounds or 3,
            "labels_compared": CHECKED,
        },
        "engines": labels.engines,
        "medians": wrk.medians(taken),
        "errors": errors,
        "rounds": taken,
        "environments": environments(names),
    }


def _measured(one: Contender, bodies: Path, labels: Labels, options: Options) -> wrk.Figures:
    """Start a server, warm it up, compare its labels, and put it under load; raises NoResponse, OSError."""
    with (
        running(one.argv, one.dialect.body(FIRST_TEXT), path=one.dialect.path, python=one.python) as server,
        peak_of(server.process.pid) as peak,
    ):
        wrk.load(server.url, wrk.WARM_S, options.connections, bodies, 0)
        equal = labels.equal(server, one)  # served after the requests left over from the warm-up
        before = _padding(server, one.dialect)
        figures = wrk.load(server.url, options.seconds or 20, options.connections, bodies, WARMING)
        after = _padding(server, one.dialect)
    figures |= {"first_answer_s": round(server.first_s, 2), "peak_rss_mb": round(peak.mb), "labels_equal": equal}
    if before and after and after[1] > before[1]:
        figures["padding_efficiency"] = round((after[0] - before[0]) / (after[1] - before[1]), 4)
    return figures


def _padding(server: Server, dialect: Dialect) -> tuple[float, float] | None:
    """Sum and count of Likewise's histogram so far; None for other servers."""
    if dialect is not MLFLOW:
        return None
    total, count = server.metric(f"{PADDING}_sum"), server.metric(f"{PADDING}_count")
    return None if total is None or count is None else (total, count)


def _bodies(dialect: Dialect, reviews: Sequence[str]) -> Path:
    path = FOLDER / f"bodies-{dialect.name}-{len(reviews)}.txt"
    path.write_bytes(b"".join(dialect.body(text) + b"\n" for text in reviews))
    return path


def _short(error: str) -> str:
    """The error and the exceptions in the log, without the path of the checkout."""
    return "\n".join([error.partition("; its log ends")[0], *complaints()]).replace(str(CHECKOUT), ".")
