"""The machine's matrix rate at a model's sizes: `python -m bench.matrix HIDDEN FFN`, called in JSON lines.

Two products with weights, hidden -> ffn -> hidden, on few rows (which fit into a core's cache) and on many, with torch,
in fp32 and bf16, with one thread per core.
"""

from __future__ import annotations

import sys
import time

from bench.child import Handler, serve_lines
from likewise.core.cores import usable_threads

ROWS = (512, 3296)
SECONDS = 0.4  # for each size in each precision
WARM = 5  # passes
PRECISIONS = ("fp32", "bf16")


def _load() -> Handler:
    import torch

    torch.set_num_threads(usable_threads())
    hidden, ffn = map(int, sys.argv[1:3])

    def rate(kind: torch.dtype, rows: int) -> float:
        """Floating-point operations per second."""
        linear = torch.nn.functional.linear
        rows_in = torch.randn(rows, hidden, dtype=kind)
        up, down = torch.randn(ffn, hidden, dtype=kind), torch.randn(hidden, ffn, dtype=kind)
        for _ in range(WARM):
            linear(linear(rows_in, up), down)
        passes, started_at = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started_at) < SECONDS:
            linear(linear(rows_in, up), down)
            passes += 1
        return passes * 4 * rows * hidden * ffn / seconds

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return lambda _: {name: {str(rows): rate(kinds[name], rows) for rows in ROWS} for name in PRECISIONS}


if __name__ == "__main__":
    serve_lines(_load)
