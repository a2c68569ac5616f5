"""Runs items again, one by one, whose process was ended while it ran them together: one of them is at fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from likewise.core.engine import ContainedEngine
from likewise.core.errors import LikewiseError, RunTimeout
from likewise.core.results import Failed, Result
from likewise.dataplane.calls import QueueEntry
from likewise.dataplane.thread import Thread

SHARE = 0.1  # of the run time-out, that an item may take at first, so that the others do not wait for one that hangs
LEAST_S = 1.0


class Suspects:
    """The items of ended runs, and the thread that runs each of them alone.

    The items of a run are tried first with little patience.  If it took too long and a single item is left then, that
    one hangs: all others together took less time than the run.  Items that are left otherwise get the whole time.
    """

    def __init__(
        self,
        engine: ContainedEngine,
        run_timeout_s: float,
        thread: Thread,
        settle: Callable[[QueueEntry, Result], None],
        drop: Callable[[QueueEntry], None],
    ) -> None:
        """settle, drop: called in the thread, with the result of an item, or if no call waits for it any more."""
        self._engine = engine
        self._run_timeout_s = run_timeout_s
        self._patience_s = min(run_timeout_s, max(LEAST_S, SHARE * run_timeout_s))
        self._thread = thread
        self._settle = settle
        self._drop = drop

    def post(self, entries: Sequence[QueueEntry], error: LikewiseError | None = None) -> None:
        """Run the `entries` of a run that was ended with `error` again."""
        self._thread.post(partial(self._try_all, entries, error))

    def shutdown(self) -> None:
        """Stop the thread after the items that are left."""
        self._thread.shutdown()

    def _try_all(self, entries: Sequence[QueueEntry], error: LikewiseError | None) -> None:
        left = [entry for entry in entries if not self._try(entry, self._patience_s)]
        if isinstance(error, RunTimeout) and len(left) == 1 < len(entries):
            self._settle(left[0], Failed(error))
            return
        for entry in left:
            self._thread.post(partial(self._try_last, entry))

    def _try_last(self, entry: QueueEntry) -> None:
        self._try(entry, self._run_timeout_s)

    def _try(self, entry: QueueEntry, seconds: float) -> bool:
        """Run an item alone; returns False if it took more than `seconds`, but not the run time-out."""
        if not entry.waiters:
            self._drop(entry)
            return True
        try:
            ((_, result),) = self._engine.answer([entry.item], alone_s=seconds)
        except RunTimeout as error:
            if seconds < self._run_timeout_s:
                return False
            result = Failed(error)
        except LikewiseError as error:
            result = Failed(error)
        self._settle(entry, result)
        return True
