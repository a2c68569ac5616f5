"""The thread pools of the libraries that this process has loaded."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from likewise.core.extras import need


def loaded_pools() -> dict[str, int]:
    """Threads by library: OpenMP and BLAS as threadpoolctl finds them, if it is installed, and torch."""
    pools: dict[str, int] = {}
    if importlib.util.find_spec("threadpoolctl") is not None:
        for pool in need("threadpoolctl", extra="mlflow").threadpool_info():
            pools[f"{pool['internal_api']} of {_owner(str(pool['filepath']))}"] = int(pool["num_threads"])
    if (torch := sys.modules.get("torch")) is not None:
        pools["torch"] = int(torch.get_num_threads())
    return pools


def _owner(path: str) -> str:
    """The package that a library belongs to; its folder if that is not installed as a package."""
    parts = Path(path).parts
    at = parts.index("site-packages") + 1 if "site-packages" in parts else -2
    return parts[at].removesuffix(".libs")
