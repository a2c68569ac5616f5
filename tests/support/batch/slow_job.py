"""A batch job with a model in plain Python, which a test runs in a process of its own; see `job`."""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from likewise.batch import Progress, ScoreOptions, score
from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import LikewiseError
from likewise.core.items import Item, Row
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Signature

SIGNATURE = Signature.parse({"inputs": [{"name": "text", "type": "string"}], "outputs": [{"type": "long"}]})


class Slow:
    """Answers the length of a row's text, after a time."""

    spec = EngineSpec("slow", "fp32", row_wise=True, thread_safe=True, pure=False, budget=64, digest="sha256:0")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        return [Work("", 1, item) for item in items]

    def run(self, work: Sequence[Work]) -> list[Result]:
        time.sleep(self._seconds * len(work))
        return [Ok(len(str(entry.payload.get("text")))) for entry in work if isinstance(entry.payload, Row)]

    def close(self) -> None:
        pass


def job(
    source: Path | str,
    output: Path | str,
    *,
    seconds: float = 0.0,
    window: int = ScoreOptions().window,
    file_limit: int | None = None,
) -> int:
    """Score `source`; the exit code.

    Prints `rows N` after every forward pass where it takes `seconds` a row, and at the end one JSON line: the report
    and the peak memory in MiB, or the error. file_limit: bytes that a file may have.
    """
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    tell = _tell if seconds else None
    try:
        report = score(Slow(seconds), "sha256:b", SIGNATURE, source, output, ScoreOptions(window=window), tell)
    except LikewiseError as error:
        print(f"\n{json.dumps(error.as_dict())}")  # Ctrl-C may have come in the middle of a line of progress
        return error.exit_code
    print(f"\n{json.dumps({**report.as_dict(), 'peak': _peak_mib()})}")
    return 0


def _peak_mib() -> float:
    """This program's own: what getrusage says on Linux includes the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _tell(progress: Progress) -> None:
    print(f"rows {progress.rows}", flush=True)


if __name__ == "__main__":
    sys.exit(job(*sys.argv[1:]))
