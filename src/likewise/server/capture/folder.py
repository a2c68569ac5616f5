"""The folder of captured requests: files appear complete, and the oldest are deleted."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from likewise.core.errors import OutputRefused
from likewise.core.private_files import own_folder, write_private

REMEDY = "choose another folder: serve --capture DIR, deploy -C capture=DIR, or LIKEWISE_CAPTURE=DIR in a container"
STALE_S = 60.0  # after which a partial file counts as left behind by a process that was killed

_NAME = re.compile(r"likewise-capture-\d{8}T\d{12}Z-[0-9a-f]{16}\.parquet")
_PARTIAL = re.compile(rf"\.{_NAME.pattern}\.\w+")


class CaptureFolder:
    """Files of several processes, which may also run on several machines.  Raises OutputRefused.

    Each file is written under another name and then renamed.  Only files with names of this class are ever deleted.
    """

    def __init__(self, path: Path, max_bytes: int, max_s: float) -> None:
        self.path, self.max_bytes, self._max_s = path, max_bytes, max_s
        try:
            own_folder(path, remedy=REMEDY)
            with tempfile.TemporaryFile(dir=path):
                pass
            self.tidy()
        except OSError as error:
            raise OutputRefused(f"requests cannot be captured in {path}: {error}", remedy=REMEDY) from error

    def write(self, data: bytes) -> None:
        """Add a file; raises OSError."""
        if len(data) > self.max_bytes:
            raise OSError(f"{len(data):,} bytes are more than the folder may have")
        self.tidy(len(data))
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        write_private(self.path / f"likewise-capture-{moment}Z-{secrets.token_hex(8)}.parquet", data)

    def tidy(self, wanted: int = 0) -> None:
        """Delete files that are too old, and the oldest, until there is space for `wanted` more bytes."""
        now, files = time.time(), []
        with os.scandir(self.path) as entries:
            for entry in entries:
                complete = _NAME.fullmatch(entry.name)
                if not complete and not _PARTIAL.fullmatch(entry.name):
                    continue
                with suppress(FileNotFoundError):  # another process deleted it
                    info = entry.stat(follow_symlinks=False)
                    if now - info.st_mtime > (self._max_s if complete else STALE_S):
                        os.unlink(entry.path)
                    elif complete:
                        files.append((entry.name, info.st_size))
        total = sum(size for _, size in files) + wanted
        for name, size in sorted(files):  # by time
            if total <= self.max_bytes:
                break
            (self.path / name).unlink(missing_ok=True)
            total -= size
