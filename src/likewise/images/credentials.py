"""Who we are to a registry: what `docker login` has written, or what a caller's function says."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from likewise.core.errors import Unauthorized
from likewise.images.oci import HUB

Credentials = Callable[[str], tuple[str, str] | None]
"""User and password for a registry's host, or None for nobody in particular. Asked once a host, when it refuses."""

HUB_KEY = "https://index.docker.io/v1/"  # under which `docker login` without a host keeps them
PATIENCE_S = 30.0


def docker_credentials(host: str) -> tuple[str, str] | None:
    """From `config.json` in `DOCKER_CONFIG` or `~/.docker`, or from the helper that it names.

    Source: Docker's description of `docker login` (credential stores and helpers). Raises Unauthorized where the file
    or the helper cannot be used.
    """
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker", "config.json")
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Unauthorized(f"{path} cannot be read: {error}", remedy="mend it, or run docker login again") from error
    key = HUB_KEY if host == HUB else host
    helper = (config.get("credHelpers") or {}).get(key) or config.get("credsStore")
    return _asked(helper, key) if helper else _kept(config, key, path)


def _kept(config: dict[str, Any], key: str, path: Path) -> tuple[str, str] | None:
    entry = (config.get("auths") or {}).get(key) or {}
    try:
        text = base64.b64decode(entry.get("auth", ""), validate=True).decode()
    except ValueError as error:
        raise Unauthorized(f"{path} has no readable entry for {key}", remedy=f"docker login {key}") from error
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


def _asked(helper: str, key: str) -> tuple[str, str] | None:
    """What `docker-credential-HELPER get` answers; it knows nobody where it ends with an error that says so."""
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=key, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        if done.returncode != 0 and "not found" in (done.stdout + done.stderr):
            return None
        found = json.loads(done.stdout)
        return str(found["Username"]), str(found["Secret"])
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        raise Unauthorized(
            f"{program}, which Docker's config.json names for {key}, gives no credentials: {type(error).__name__}",
            remedy=f"run {program} get by hand, or docker login {key}",
        ) from error
