"""What was measured of a bundle's engines on this kind of CPU: in its manifest, or later on this machine."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

from likewise.bundles.format import EngineEntry, Manifest
from likewise.core.cores import usable_cores
from likewise.core.digests import sha256_json
from likewise.engine.kinds import runs_code

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8", "asimd", "sve", "bf16")
"""CPU extensions that change which engine wins."""


def cache_home() -> Path:
    """Where what can be made again lies: `LIKEWISE_CACHE_HOME`, or the user's cache folder."""
    return Path(os.environ.get("LIKEWISE_CACHE_HOME") or user_cache_path("likewise")).absolute()


@cache
def cpu_class() -> str:
    """CPUs of one class run the same engine fastest: maker, family, model, extensions and how many cores.

    Source: /proc/cpuinfo on Linux; elsewhere what Python says of the processor.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return describe_cpu(text, usable_cores())


def describe_cpu(cpuinfo: str, cores: int) -> str:
    """The class of the CPU that `cpuinfo`, as Linux writes it, tells of."""
    parts = (line.partition(":") for line in reversed(cpuinfo.splitlines()))
    found = {name.strip(): value.strip() for name, _, value in parts}
    names = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")
    who = "/".join(found[name] for name in names if found.get(name)) or platform.processor() or platform.machine()
    held = set(re.split(r"\s+", found.get("flags") or found.get("Features") or ""))
    return " ".join([who, *(flag for flag in FLAGS if flag in held), f"x{cores}"])


def known_rates(manifest: Manifest) -> dict[str, float]:
    """Rows a second by engine label on this CPU class; what was measured here counts before what the bundle says."""
    here = _read(rates_file(manifest))
    return _of_this_cpu(here) or _of_this_cpu(manifest.measured.get("rates"))


def remember_rates(manifest: Manifest, rates: Mapping[str, float]) -> Path:
    """Keep what was measured here for later starts; returns the file."""
    path = rates_file(manifest)
    path.parent.mkdir(parents=True, exist_ok=True)
    held = _read(path)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps({**(held if isinstance(held, dict) else {}), cpu_class(): dict(rates)}, indent=2))
    beside.replace(path)
    return path


def rates_file(manifest: Manifest) -> Path:
    """`measured/DIGEST.json` in the cache; of the bundle and its engines, as the same model may be compiled anew."""
    engines = [(entry.name, entry.precision, entry.digest) for entry in manifest.engines]
    name = sha256_json({"bundle": manifest.digest, "engines": engines}).replace(":", "-")
    return cache_home() / "measured" / f"{name}.json"


def by_speed(entries: Sequence[EngineEntry], rates: Mapping[str, float]) -> list[EngineEntry]:
    """`entries`, the fastest first; engines that run the model's own code last.

    Where nothing was measured, fp32 comes before bf16, whose guard was measured on another kind of CPU; otherwise
    the manifest's order stands.
    """

    def rank(entry: EngineEntry) -> tuple[bool, float, bool]:
        rate = rates.get(label(entry), 0.0)
        return runs_code(entry), -rate, rate == 0.0 and entry.precision.startswith("bf16")

    return sorted(entries, key=rank)


def label(entry: EngineEntry) -> str:
    """`name/precision`."""
    return f"{entry.name}/{entry.precision}"


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):  # a cache that cannot be read says nothing
        return {}


def _of_this_cpu(classes: object) -> dict[str, float]:
    rates = classes.get(cpu_class()) if isinstance(classes, Mapping) else None
    if not isinstance(rates, Mapping):
        return {}
    return {str(name): float(rate) for name, rate in rates.items() if isinstance(rate, int | float) and rate > 0}
