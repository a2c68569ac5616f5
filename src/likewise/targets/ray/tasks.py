"""The tasks of a job in a worker on Ray, once Likewise can be imported there."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from likewise.batch.distributed.tasks import cut_file, score_file
from likewise.bundles.open import open_exactly
from likewise.core.engine import Engine
from likewise.core.errors import LikewiseError
from likewise.core.spec import ModelSpec
from likewise.engine.load import open_engine


class Tasks:
    """Runs tasks with the model of the bundle in `folder`.  model: a dict from `ModelSpec.portable`."""

    def __init__(self, folder: Path, model: Mapping[str, Any]) -> None:
        self._folder = folder
        self._model = ModelSpec.from_dict(model)
        self._opened: Engine | None = None

    def run(self, task: bytes) -> dict[str, object]:
        """The result of a task: a pickled tuple of `cut` or `score`, and the arguments of `cut_file` or `score_file`.

        An error that a retry would not fix is returned as `error`.
        """
        name, *arguments = pickle.loads(task)  # noqa: S301  Ray's own channel
        try:
            return cut_file(*arguments) if name == "cut" else score_file(self._engine, *arguments)
        except LikewiseError as error:
            return {"error": error.as_dict()}

    def _engine(self) -> Engine:
        if self._opened is None:
            self._opened = open_engine(open_exactly(self._model, self._folder), self._model)
        return self._opened
