"""Credentials for registries: from Docker's configuration (`docker login`), or from a function that a caller passes."""

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
"""Returns user and password for a registry's host, or None for anonymous access. Called after a 401 response."""

HUB_KEY = "https://index.docker.io/v1/"  # the key that `docker login` without a host writes
HELPER_TIMEOUT_S = 30.0


def docker_credentials(host: str) -> tuple[str, str] | None:
    """Read credentials from `config.json` in `DOCKER_CONFIG` or `~/.docker`, or from the helper configured there.

    Source: Docker's description of `docker login` (credential stores and helpers). Raises Unauthorized if
    the file or the helper cannot be used.
    """
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker", "config.json")
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Unauthorized(f"{path} cannot be read: {error}", remedy="correct it, or run docker login again") from error
    key = HUB_KEY if host == HUB else host
    helper = (config.get("credHelpers") or {}).get(key) or config.get("credsStore")
    return _from_helper(helper, key) if helper else _from_config(config, key, path)


def _from_config(config: dict[str, Any], key: str, path: Path) -> tuple[str, str] | None:
    entry = (config.get("auths") or {}).get(key) or {}
    try:
        text = base64.b64decode(entry.get("auth", ""), validate=True).decode()
    except ValueError as error:
        raise Unauthorized(f"{path} has an unreadable entry for {key}", remedy=f"docker login {key}") from error
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


def _from_helper(helper: str, key: str) -> tuple[str, str] | None:
    """The output of `docker-credential-HELPER get`; None if the helper reports that it has no entry."""
    program = f"docker-credential-{helper}"
    try:
        completed = subprocess.run(
            [program, "get"], input=key, capture_output=True, text=True, timeout=HELPER_TIMEOUT_S, check=False
        )
        if completed.returncode != 0 and "not found" in (completed.stdout + completed.stderr):
            return None
        entry = json.loads(completed.stdout)
        return str(entry["Username"]), str(entry["Secret"])
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        raise Unauthorized(
            f"{program}, configured for {key} in Docker's config.json, returned no credentials: {type(error).__name__}",
            remedy=f"run '{program} get' by hand to see why, or docker login {key}",
        ) from error
