"""The machine's matrix rate at a model's sizes: `python -m bench.matrix HIDDEN FFN`, asked in JSON lines.

Two products with weights, hidden -> ffn -> hidden, on a few rows (what fits a core's cache) and on many, by torch, in
fp32 and bf16, on as many threads as there are cores.
"""

from __future__ import annotations

import sys
import time

from bench.child import Answer, answer_lines
from likewise.core.cores import usable_threads

ROWS = (512, 3296)
SECONDS = 0.4  # of each size in each precision, by `perf_counter`
WARM = 5  # passes
PRECISIONS = ("fp32", "bf16")


def _load() -> Answer:
    import torch

    torch.set_num_threads(usable_threads())
    hidden, ffn = map(int, sys.argv[1:3])

    def rate(kind: torch.dtype, rows: int) -> float:
        """Floating-point operations a second."""
        linear = torch.nn.functional.linear
        given = torch.randn(rows, hidden, dtype=kind)
        up, down = torch.randn(ffn, hidden, dtype=kind), torch.randn(hidden, ffn, dtype=kind)
        for _ in range(WARM):
            linear(linear(given, up), down)
        passes, began = 0, time.perf_counter()
        while (seconds := time.perf_counter() - began) < SECONDS:
            linear(linear(given, up), down)
            passes += 1
        return passes * 4 * rows * hidden * ffn / seconds

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return lambda _: {name: {str(rows): rate(kinds[name], rows) for rows in ROWS} for name in PRECISIONS}


if __name__ == "__main__":
    answer_lines(_load)
