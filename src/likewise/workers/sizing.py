"""The number of workers, if the user does not set it: as many as the cores can run and the memory can hold."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from likewise.core.cores import usable_cores
from likewise.core.memory import available_memory, private_memory

BASE_BYTES = 300 * 1024 * 1024  # of a process with the libraries of a small model
GROWTH = 1.5  # ratio of a process's memory to that of its model's files, or after some predictions to after loading


def automatic_count(model_bytes: int, most: int) -> int:
    """The number of workers for a model whose files have `model_bytes`: one per core, at most `most`, if they fit."""
    return max(1, min(usable_cores(), most, _copies(GROWTH * model_bytes + BASE_BYTES)))


def fitting(pid: int, count: int) -> int:
    """How many of `count` workers fit, given the first one, which has loaded the model: one if that is on a GPU.

    The memory has to hold one more, which is started when a run takes too long.
    """
    if _uses_gpu(pid):
        return 1
    return max(1, min(count, _copies(GROWTH * max(1, private_memory(pid)))))


def _copies(size: float) -> int:
    available = available_memory()
    return 1_000_000 if available is None else int(available / size)


def _uses_gpu(pid: int) -> bool:
    """Whether the process has opened a device of NVIDIA or AMD."""
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.readlink(entry).startswith(("/dev/nvidia", "/dev/kfd")):
                    return True
    return False
