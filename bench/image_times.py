"""Images: seconds to build one, bytes added to the base, seconds from a container's start to its first response."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import statistics
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import Request, urlopen

from bench.environments import versions
from bench.model import FOLDER, body, subject
from bench.options import Options
from likewise.bundles.open import open_bundle, write_manifest
from likewise.core.spec import ModelSpec
from likewise.images.base import DEFAULT
from likewise.images.build import Built, ImageOptions, build_image
from likewise.images.containers import ContainerEngine, find_engine, load, start
from likewise.images.store import Store

STARTS = 5
FLOORS = {"environment_s": 60.0, "model_only_s": 5.0, "beyond_base_mb": 330.0, "first_answer_s": 3.0}
BASE = "LIKEWISE_BENCH_BASE"  # an image, or a tar of a root file system
REQUEST_BODY = body("What a movie!")


def image(options: Options) -> dict[str, object]:
    """Figures for the demo's pipeline on the base in LIKEWISE_BENCH_BASE, with the available Docker or Podman."""
    base, bundle = os.environ.get(BASE, DEFAULT), subject().bundle
    with TemporaryDirectory(dir=FOLDER) as folder:
        store = Store(Path(folder) / "images")
        cold = _built(store, bundle, base)
        _forget_layers(store)
        warm = _built(store, bundle, base)
        model_only = _built(store, _another_model(bundle, Path(folder) / "another"), base)
        built_now = [
            [part.made for part in (each.parts[0].environment, each.parts[0].bundle)] for each in (warm, model_only)
        ]
        assert built_now == [[True, True], [False, True]], built_now
        engine = find_engine()
        loaded = load(store, model_only.name, engine)
        starts = [_start(engine, loaded) for _ in range(options.rounds or STARTS)]
        beyond = {name: _size_mb(store, model_only, name) for name in ("environment", "bundle")}
    return {
        "wheels_fetched_s": round(cold.seconds, 1),
        "environment_s": round(warm.seconds, 1),
        "model_only_s": round(model_only.seconds, 2),
        "beyond_base_mb": {**beyond, "all": round(sum(beyond.values()), 1)},
        "ready_s": round(statistics.median(ready for ready, _ in starts), 2),
        "first_answer_s": round(statistics.median(responded for _, responded in starts), 2),
        "starts": starts,
        "floors": FLOORS,
        "engine": f"{engine.program} {engine.version}",
        "base": base,
        "versions": versions(Path(sys.executable), "openvino", "tokenizers"),
    }


def _built(store: Store, bundle: Path, base: str) -> Built:
    opened = open_bundle(bundle)
    built = build_image(opened, "bench:1", ModelSpec(opened.digest), ImageOptions(base=base), store=store)
    print(f"  built in {built.seconds:.1f} s", flush=True)
    return built


def _forget_layers(store: Store) -> None:
    """Make the store forget its layers but not its wheels, as on a machine that has used these versions before."""
    for each in (store.folder / "known").glob("layer-*"):
        each.unlink()


def _another_model(bundle: Path, copy: Path) -> Path:
    """A copy of the bundle with one changed file and a new seal."""
    shutil.copytree(bundle, copy, copy_function=os.link)
    example = copy / "model" / "serving_input_example.json"
    text = example.read_text(encoding="utf-8")
    example.unlink()
    example.write_text(text + "\n", encoding="utf-8")
    manifest = open_bundle(bundle).manifest
    (copy / "likewise.json").unlink()
    write_manifest(copy, manifest)
    return copy


def _start(engine: ContainerEngine, loaded: str) -> tuple[float, float]:
    """Seconds from `run` until the container is ready, and until its first response."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    started_at = time.perf_counter()
    running = start(engine, loaded, port, network="host")
    try:
        request = Request(f"{running.url}/invocations", REQUEST_BODY, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as response:
            assert response.status == 200
        responded = time.perf_counter() - started_at
    finally:
        with suppress(OSError):
            running.stop()
    print(f"  ready after {running.seconds:.2f} s, first response after {responded:.2f} s", flush=True)
    return round(running.seconds, 3), round(responded, 3)


def _size_mb(store: Store, built: Built, name: str) -> float:
    """The uncompressed size of one of Likewise's layers."""
    layer = getattr(built.parts[0], name).layer
    with gzip.open(store.path(layer.blob.digest)) as stream:
        return round(sum(len(part) for part in iter(partial(stream.read, 1 << 20), b"")) / 1e6, 1)
