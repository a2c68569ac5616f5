"""Imports of optional libraries, with installation instructions if one is missing."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import sys
from importlib import metadata
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

from likewise.core.errors import MissingExtra
from likewise.core.lazy_imports import executed_when_used
from likewise.core.uris import without_secrets

SELDOM_USED = {"mlflow": ("mlflow.genai", "mlflow.gateway")}
"""By library: packages that it imports at its start and few models use. Those of MLflow take a third of its time."""


def need(module: str, *, extra: str) -> ModuleType:
    """Import `module`; raises MissingExtra with the installation command if it is not installed."""
    top = module.partition(".")[0]
    try:
        if top in SELDOM_USED and top not in sys.modules:
            with executed_when_used(*SELDOM_USED[top]):
                importlib.import_module(top)
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        raise MissingExtra(f"this needs {top}, which is not installed", remedy=install_command(extra)) from error


def direct_url(distribution: metadata.Distribution) -> dict[str, Any]:
    """Where a distribution was installed from; empty if from a package index. Source: PEP 610."""
    return dict(json.loads(distribution.read_text("direct_url.json") or "{}"))


def install_command(extras: str) -> str:
    """The command that installs `extras`, such as `batch,spark`, from where this Likewise was installed.

    That is a checkout, a wheel, a repository, or a package index, as PEP 610 records it.
    """
    try:
        origin = direct_url(metadata.distribution("likewise"))
    except metadata.PackageNotFoundError:
        origin = {}
    url, vcs = str(origin.get("url", "")), origin.get("vcs_info", {})
    if vcs:
        source = f"{vcs.get('vcs', 'git')}+{without_secrets(url)}@{vcs.get('commit_id', 'HEAD')}"
        return f"pip install {shlex.quote(f'likewise[{extras}] @ {source}')}"
    path = unquote(urlsplit(url).path)
    if not url.startswith("file:") or not os.path.exists(path):
        return f"pip install 'likewise[{extras}]'"
    if os.path.isfile(path):
        return f"pip install {shlex.quote(f'likewise[{extras}] @ {url}')}"
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"pip install {editable}{shlex.quote(f'{path}[{extras}]')}"
