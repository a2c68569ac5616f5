"""Wheels that no package index has, and distributions that look installed."""

from __future__ import annotations

import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

PRIVATE = "likewise-private-thing"  # not in any index


def make_wheel(
    folder: Path,
    name: str = PRIVATE,
    version: str = "1.0",
    *,
    tag: str = "py3-none-any",
    build: str = "",
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write a wheel with `files`, by default one module.  build: the build tag, such as `1`."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_").replace(".", "_")
    parts = [module, version, *([build] if build else []), tag]
    path, info = folder / f"{'-'.join(parts)}.whl", f"{module}-{version}.dist-info"
    contents = {
        **({f"{module}.py": "x = 1\n"} if files is None else files),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{each},{_record(text.encode())}\n" for each, text in contents.items()) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as wheel:
        for each, text in {**contents, f"{info}/RECORD": record}.items():
            wheel.writestr(each, text)
    return path


def _record(data: bytes) -> str:
    return f"sha256={urlsafe_b64encode(sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"


def install(patch: pytest.MonkeyPatch, folder: Path, name: str = PRIVATE, version: str = "1.0", **files: str) -> None:
    """Make a distribution look installed.  files: contents of its metadata files, such as `INSTALLER`."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    for each, text in {"METADATA": metadata, "RECORD": "", **files}.items():
        (info / each.replace("direct_url", "direct_url.json")).write_text(text)
    patch.syspath_prepend(str(folder))
