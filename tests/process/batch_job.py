"""A batch job in a process of its own: `batch_job.py SOURCE OUTPUT [SECONDS_A_ROW]`, WINDOW in the environment.

Prints `rows N` after every forward pass, and at the end one JSON line: the report and the peak memory in MiB, or the
error.
"""

from __future__ import annotations

import json
import os
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


def main() -> int:
    source, output, *seconds = sys.argv[1:]
    signature = Signature.parse({"inputs": [{"name": "text", "type": "string"}], "outputs": [{"type": "long"}]})
    engine = Slow(float(seconds[0]) if seconds else 0.0)
    options = ScoreOptions(window=int(os.environ.get("WINDOW", ScoreOptions().window)))
    try:
        report = score(engine, "sha256:b", signature, source, output, options, _tell if seconds else None)
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
    sys.exit(main())
