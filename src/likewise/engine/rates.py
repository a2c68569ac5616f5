"""Speed measurements of a bundle's engines for this kind of CPU, from the manifest or from this machine's cache."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from likewise.bundles.cache import cache_folder, cache_home
from likewise.bundles.format import EngineEntry, Manifest
from likewise.core.cores import usable_cores
from likewise.core.errors import OutputRefused
from likewise.core.private_files import open_folder, write_private
from likewise.engine.kinds import runs_code

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8", "asimd", "sve", "bf16")
"""CPU extensions that affect which engine is fastest."""
PLAIN = "load_model"
"""The key of plain `mlflow.pyfunc.load_model` among rates, which predicts one row after the other."""


@cache
def cpu_class() -> str:
    """The class of this machine's CPU: vendor, family, model, extensions and number of cores.

    On CPUs of the same class the same engine is fastest. Source: /proc/cpuinfo on Linux, else `platform.processor`.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return describe_cpu(text, usable_cores())


def describe_cpu(cpuinfo: str, cores: int) -> str:
    """The class of the CPU described by `cpuinfo`, the contents of Linux's /proc/cpuinfo."""
    parts = (line.partition(":") for line in reversed(cpuinfo.splitlines()))
    properties = {name.strip(): value.strip() for name, _, value in parts}
    names = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")
    known = "/".join(properties[name] for name in names if properties.get(name))
    model = known or platform.processor() or platform.machine()
    flags = set(re.split(r"\s+", properties.get("flags") or properties.get("Features") or ""))
    return " ".join([model, *(flag for flag in FLAGS if flag in flags), f"x{cores}"])


def known_rates(manifest: Manifest) -> dict[str, float]:
    """Rows per second by engine label for this CPU class; this machine's measurements override the bundle's."""
    cached = _read(rates_file(manifest))
    return _for_this_cpu(cached) or _for_this_cpu(manifest.rates)


def speeds(manifest: Manifest) -> dict[str, float]:
    """Rows per second by engine label and of `PLAIN`, for people: also what did not decide which engine is used."""
    return {**_for_this_cpu(manifest.measured.get("speeds")), **known_rates(manifest)}


def remember_rates(manifest: Manifest, rates: Mapping[str, float]) -> Path:
    """Save measurements of this machine for later starts; returns the file."""
    path = rates_file(manifest)
    cache_folder("measured")
    cached = _read(path)
    known = cached if isinstance(cached, dict) else {}
    write_private(path, json.dumps({**known, cpu_class(): dict(rates)}, indent=2))
    return path


def rates_file(manifest: Manifest) -> Path:
    """`measured/DIGEST.json` in the cache, by the build digest, as a model may be compiled again."""
    return cache_home() / "measured" / f"{manifest.build.replace(':', '-')}.json"


def by_speed(entries: Sequence[EngineEntry], rates: Mapping[str, float]) -> list[EngineEntry]:
    """`entries` sorted by speed, the fastest first; engines that run the model's own code come last.

    Without measurements, fp32 comes before others, which were calibrated on another kind of CPU; otherwise the
    manifest's order is kept.
    """

    def rank(entry: EngineEntry) -> tuple[bool, float, bool]:
        rate = rates.get(label(entry), 0.0)
        return runs_code(entry), -rate, rate == 0.0 and entry.precision not in ("fp32", "native")

    return sorted(entries, key=rank)


def label(entry: EngineEntry) -> str:
    """The engine's label, `name/precision`."""
    return f"{entry.name}/{entry.precision}"


def _read(path: Path) -> object:
    try:
        os.close(open_folder(path.parent))
        return json.loads(path.read_bytes())
    except (OSError, ValueError, OutputRefused):  # an unreadable cache, or that of another user, is ignored
        return {}


def _for_this_cpu(classes: object) -> dict[str, float]:
    rates = classes.get(cpu_class()) if isinstance(classes, Mapping) else None
    if not isinstance(rates, Mapping):
        return {}
    return {str(name): float(rate) for name, rate in rates.items() if isinstance(rate, int | float) and rate > 0}
