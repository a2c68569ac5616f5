"""Files outside a model that are part of the machine rather than of the model's answer.

Settings of libraries in the home folder are reported, because a bundle does not contain them; caches that only save
time, fonts, translations, time zones, certificates and metadata of packages are not.  Anything else in the home folder
may hold weights or data (`~/.cache/huggingface`, `~/.keras/models`, `~/nltk_data`).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import zoneinfo
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

SYSTEM = (
    *("/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/lib64", "/bin", "/sbin", "/var/lib", "/var/cache"),
    *("/nix/store", "/gnu/store", "/System", "/Library"),
)
DATA = frozenset({"nltk_data", "huggingface", "checkpoints"})  # folders of weights and data, wherever they are
PACKAGES = frozenset({"site-packages", "dist-packages"})
_CACHES = "fontconfig matplotlib mesa_shader_cache numba nv pip torch/inductor torch/kernels torch_extensions triton"
QUICK = frozenset(_CACHES.split())  # in `~/.cache`, or hidden in the home folder: they only save time
FONTS_AND_TRANSLATIONS = frozenset({".afm", ".mo", ".otf", ".pfb", ".ttc", ".ttf", ".woff", ".woff2"})
METADATA = (".dist-info", ".egg-info")
INCIDENTAL = frozenset({"__pycache__", ".git"})  # MLflow tags the traces of agents with the current folder's commit
SETTINGS = frozenset({"", ".cfg", ".conf", ".ini", ".json", ".toml", ".xml", ".yaml", ".yml"})
PLAIN_SETTINGS = frozenset({".cfg", ".conf", ".ini", ".toml"})
SETTING_NAMES = frozenset({"config", "credentials", "preferences", "settings"})
ACCOUNTS = frozenset({".aws", ".azure", ".databricks", ".docker", ".gnupg", ".kube", ".ssh"})
_LOCATIONS = ("TZDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
_SEARCHED = ("PATH", "LD_LIBRARY_PATH", "JAVA_HOME", "CUDA_HOME", "SPARK_HOME")
SOFTWARE = frozenset({"boot", "lib32", "libx32", "lost+found", "opt", "run", "snap", "var"})  # and those in SYSTEM
KERAS = {"floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last"}  # without `backend`, see `pyfunc`
LOG_FILES = (
    "log such files with the model (artifacts=… or code_paths=…), or let it open them by a URI through MLflow "
    "(mlflow.artifacts.download_artifacts), so that they are vendored"
)


def machine_folders() -> tuple[str, ...]:
    """The folders of Python, its packages, the system, time zones, certificates and temporary files."""
    named = (*zoneinfo.TZPATH, *(os.environ.get(name, "") for name in _LOCATIONS), tempfile.gettempdir())
    return (*spellings(path for path in _python() if path), *SYSTEM, *spellings(path for path in named if path))


def own_folders() -> list[Path]:
    """The folders that another machine does not have: homes, temporary files, and all outside the system's folders."""
    system = {PurePath(path).parts[1] for path in SYSTEM} | SOFTWARE
    top = [path for path in Path("/").iterdir() if path.is_dir() and not path.is_symlink() and path.name not in system]
    home = Path(os.path.expanduser("~")).resolve()  # unlike Path.home(), does not raise without one
    inside = [home] if len(home.parts) > 2 else []  # a service's home may be `/` or `/usr`
    return [*top, *inside, Path(tempfile.gettempdir()), Path("/var/tmp")]  # noqa: S108  hidden, never used


def search_paths() -> Iterator[str]:
    """The folders of Python, its packages, programs and libraries, wherever they are."""
    listed = (path for name in _SEARCHED for path in os.environ.get(name, "").split(os.pathsep))
    yield from spellings(path for path in (*_python(), *listed) if path)


def _python() -> tuple[str, ...]:
    return (sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path, sys.pycache_prefix or "", *_editable())


def holds_data(path: str) -> bool:
    """Whether `path` is in a folder of weights or data that may lie among Python's or the system's folders."""
    parts = PurePath(path).parts
    return not DATA.isdisjoint(parts) and PACKAGES.isdisjoint(parts)


def is_incidental(path: str) -> bool:
    """Whether the file only saves time, shows text or describes a package."""
    parts = PurePath(path).parts
    if not INCIDENTAL.isdisjoint(parts) or any(part.endswith(METADATA) for part in parts):
        return True
    return PurePath(path).suffix.lower() in FONTS_AND_TRANSLATIONS or (_saves_time(path) and not is_setting(path))


def is_setting(path: str) -> bool:
    """Whether the file holds settings of a library or of an account, by its place in the home folder and its name."""
    if _below(path, _folder("XDG_CONFIG_HOME", ".config")):
        return PurePath(path).suffix in SETTINGS
    parts = _below(path, os.path.expanduser("~"))
    if not parts or not parts[0].startswith("."):
        return False
    if parts[0] in ACCOUNTS:
        return True
    name = parts[-1].removeprefix(".")
    stem, suffix = os.path.splitext(name)
    plain = suffix in PLAIN_SETTINGS or name.endswith("rc")
    if len(parts) == 1:  # `~/.netrc`
        return plain or not suffix
    known = stem in SETTING_NAMES or f".{stem}" == parts[0]  # `~/.keras/keras.json`
    return len(parts) == 2 and (plain or (known and suffix in SETTINGS))


def described(path: str) -> str | None:
    """What to report about a settings file that a model reads; None if it only holds the library's defaults."""
    changed = ""
    if PurePath(path).parts[-2:] == (".keras", "keras.json"):
        changed = ", ".join(_unlike_keras(Path(path)))
        if not changed:
            return None
    return f"{path}{f' ({changed})' if changed else ''}"


def spellings(paths: Iterable[str | Path]) -> Iterator[str]:
    """Each path, absolute and with links resolved."""
    for path in paths:
        yield from {os.path.abspath(path), os.path.realpath(path)}


def _unlike_keras(path: Path) -> list[str]:
    """The values that differ from Keras's defaults, as `name: value`."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):  # Keras ignores it
        return []
    return [f"{name}: {values[name]}" for name, default in KERAS.items() if values.get(name, default) != default]


def _saves_time(path: str) -> bool:
    for parts in (_below(path, _folder("XDG_CACHE_HOME", ".cache")), _below(path, os.path.expanduser("~/."))):
        if not QUICK.isdisjoint((parts[0], "/".join(parts[:2])) if parts else ()):
            return True
    return False


def _folder(variable: str, default: str) -> str:
    return os.environ.get(variable) or os.path.expanduser(f"~/{default}")


def _below(path: str, folder: str) -> tuple[str, ...]:
    """The parts of `path` below `folder`, which may end in the start of a name; empty if it is elsewhere."""
    prefix = folder if folder.endswith(".") else folder.rstrip("/") + "/"
    return PurePath(path.removeprefix(prefix)).parts if path.startswith(prefix) else ()


def _editable() -> Iterator[str]:
    """The folders of packages that are installed for development, which setuptools' finders map to."""
    for name, module in list(sys.modules.items()):
        if name.startswith("__editable__"):
            yield from map(str, getattr(module, "MAPPING", {}).values())
