"""Capture of sampled requests and their predictions as Parquet files, for `likewise verify --golden` and pandas."""

from __future__ import annotations

from pathlib import Path

from likewise.server.capture.capture import Capture
from likewise.server.capture.columns import Answer, Sample
from likewise.server.capture.folder import CaptureFolder
from likewise.server.metrics import Metrics
from likewise.server.model import ServedModel
from likewise.server.server_options import ServerOptions

__all__ = ["Answer", "Capture", "Sample", "capture_of"]

DAY_S = 24 * 3600.0


def capture_of(options: ServerOptions, model: ServedModel, metrics: Metrics) -> Capture | None:
    """The capture that the options request; None without one.

    Raises OutputRefused (a folder that cannot be written), MissingExtra, and WrongUsage (see `Columns`).
    """
    if options.capture is None:
        return None
    return Capture(
        CaptureFolder(
            Path(options.capture),  # text, from Ray's JSON
            options.capture_bytes,
            options.capture_days * DAY_S,
        ),
        model.signature,
        rate=options.capture_rate,
        bundle=model.digest,
        on_written=metrics.captured,
        on_dropped=metrics.capture_dropped,
    )
