"""What a decoded request is, and in which form its asker wants the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from likewise.core.items import Params, Table


class Form(Enum):
    """How the answer is to be written."""

    MLFLOW = "mlflow"
    """MLflow 2 and 3: `{"predictions": …}`."""
    LEGACY = "legacy"
    """MLflow 1: the bare predictions, a frame as a list of records."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, read: its rows, fitted to the model's signature; its params; the form of its answer."""

    table: Table
    params: Params = field(default_factory=dict)
    form: Form = Form.MLFLOW
