"""Credentials for registries: from Docker's configuration (`docker login`), or from a function that a caller passes.

Source: Docker, "docker login" (credential stores and helpers, `config.json`, DOCKER_AUTH_CONFIG).
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from likewise.core.errors import Unauthorized
from likewise.images.oci import HUB, HUB_API

Credentials = Callable[[str], tuple[str, str] | None]
"""Returns user and password for a registry's host, or None for anonymous access. Called after a 401 response."""

HUB_KEY = "https://index.docker.io/v1/"  # the key that `docker login` without a host writes
HUB_NAMES = (HUB, HUB_API, "index.docker.io")
IDENTITY = "<token>"  # the user whose password is an identity token, as Docker's helpers name it
HELPER_TIMEOUT_S = 30.0
IN_ENVIRONMENT = "DOCKER_AUTH_CONFIG"


def docker_credentials(host: str) -> tuple[str, str] | None:
    """The credentials in DOCKER_AUTH_CONFIG, else in `config.json` in DOCKER_CONFIG or `~/.docker`, or its helper's.

    The user of an identity token is IDENTITY.

    Raises Unauthorized if they cannot be read; it names the key that is not understood.
    """
    key = HUB_KEY if host == HUB else host
    if text := os.environ.get(IN_ENVIRONMENT):
        configuration = _Configuration(text.encode(), f"the variable {IN_ENVIRONMENT}")
        if (found := configuration.entry(key)) is not None:
            return found
    path = Path(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unauthorized(f"{path} cannot be read: {error}", remedy="correct it, or run docker login again") from error
    configuration = _Configuration(content, str(path))
    helper = configuration.helper(key)
    return _from_helper(helper, key) if helper else configuration.entry(key)


class _Configuration:
    """Docker's configuration.  where: for messages, which show no values."""

    def __init__(self, content: bytes, where: str) -> None:
        self._where = where
        try:
            self._document = self._of(dict, json.loads(content), "")
        except (ValueError, RecursionError) as error:
            raise self._refused("", "is not valid JSON") from error

    def helper(self, key: str) -> str:
        """The suffix of the helper program for `key`; empty without one."""
        own = self._get(dict, self._document, "credHelpers")
        name: str = self._get(str, own, key, "credHelpers.") or self._get(str, self._document, "credsStore")
        return name

    def entry(self, key: str) -> tuple[str, str] | None:
        """What `auths` has for `key`: exactly, or as a URL of this host; None without credentials."""
        auths = self._get(dict, self._document, "auths")
        name = key if key in auths else next((each for each in auths if _is_for(each, key)), key)
        entry, path = self._get(dict, auths, name, "auths."), f"auths.{name}."
        if token := self._get(str, entry, "identitytoken", path):
            return IDENTITY, token
        if encoded := self._get(str, entry, "auth", path):
            try:
                user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
            except ValueError as error:
                raise self._refused(f"{path}auth", "is not base64 of USER:PASSWORD") from error
            if not colon:
                raise self._refused(f"{path}auth", "is not base64 of USER:PASSWORD")
            return user, password.rstrip("\0")  # which Docker writes there
        user, password = self._get(str, entry, "username", path), self._get(str, entry, "password", path)
        if user and password:
            return user, password
        for unknown in sorted(each for each in entry if entry[each] and each not in ("email", "serveraddress")):
            raise self._refused(f"{path}{unknown}", "is not supported, or needs a second key")
        return None

    def _get(self, kind: type, document: Mapping[str, Any], key: str, path: str = "") -> Any:
        """The value of a key, checked; an empty `kind` if it is missing or null."""
        value = document.get(key)
        return kind() if value is None else self._of(kind, value, path + key)

    def _of(self, kind: type, value: object, path: str) -> Any:
        if not isinstance(value, kind):
            raise self._refused(path, f"is not {'an object' if kind is dict else 'a text'}")
        return value

    def _refused(self, path: str, problem: str) -> Unauthorized:
        where = f"{path} in {self._where}" if path else self._where
        return Unauthorized(f"{where} {problem}", remedy="correct it, or run docker login again")


def _is_for(key: str, host: str) -> bool:
    """Whether a key such as `https://HOST/v1/` is for this host."""
    name = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return name in HUB_NAMES if host == HUB_KEY else name == host


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
