"""A batch job with a model in plain Python, which tests run in a separate process; see `job`."""

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
    """Predicts the length of a row's text, after `seconds` per row."""

    spec = EngineSpec("slow", "fp32", row_wise=True, thread_safe=True, pure=False, budget=64)

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
    """Score `source` and return the exit code.

    With `seconds`, the time per row, prints `rows N` after every forward pass. Finally prints one JSON line: the report
    with the peak memory in MiB, or the error. file_limit: maximum size of a file in bytes.
    """
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    progress = _print_rows if seconds else None
    try:
        report = score(Slow(seconds), "sha256:b", SIGNATURE, source, output, ScoreOptions(window=window), progress)
    except LikewiseError as error:
        print(f"\n{json.dumps(error.as_dict())}")  # Ctrl-C may have interrupted a line of progress
        return error.exit_code
    print(f"\n{json.dumps({**report.as_dict(), 'peak': _peak_mib()})}")
    return 0


def _peak_mib() -> float:
    """The peak memory of this program; on Linux getrusage would include that of the parent process."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _print_rows(progress: Progress) -> None:
    print(f"rows {progress.rows}", flush=True)


if __name__ == "__main__":
    sys.exit(job(*sys.argv[1:]))
