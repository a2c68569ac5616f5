"""The resources of local deployments: files in the user's data folder, and processes."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.processes import command_of, environment_of


def left_in(data: Path) -> list[str]:
    """All files and processes of local deployments of the user whose data folder is `data`."""
    # os.walk ignores folders that a command moves or deletes meanwhile
    files = [os.path.join(top, name) for top, folders, names in os.walk(data / "local") for name in folders + names]
    return sorted(files) + [f"process {pid}" for pid in processes_in(data)]


def processes_in(data: Path) -> list[int]:
    """The processes of these deployments, identified by the folder in their environment."""
    all_pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return [
        pid
        for pid in all_pids
        if "likewise.targets.local" in command_of(pid) and environment_of(pid).get("LIKEWISE_DATA_HOME") == str(data)
    ]
