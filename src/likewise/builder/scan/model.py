"""Scans a bundle, or the model at a URI: finds pickles and code in its files, by name and by content. Runs nothing."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from likewise.builder.resolve import resolve
from likewise.builder.scan.findings import Remark, Scan, imports, level, plain
from likewise.builder.scan.pickles import CHUNK, ITEM, WRAPPER, Limits, Name, NotClear, Reader, names_in
from likewise.bundles.folder import regular_files
from likewise.bundles.format import MANIFEST
from likewise.bundles.open import is_bundle, open_bundle
from likewise.core.extras import need
from likewise.core.scratch import scratch_folder
from likewise.core.uris import without_secrets
from likewise.pipeline.mlmodel import MLMODEL, read_model

PACKAGES = (".whl", ".egg")
CODE = {
    ".py": "Python code",
    ".pyc": "compiled Python code",
    **dict.fromkeys((".pyd", ".so", ".dll", ".dylib"), "a native library"),
    **dict.fromkeys(PACKAGES, "a Python package, which image builds may install"),
    ".ipynb": "a notebook, which MLflow runs if it is the model's code",
}
SETTINGS = {".json": 64 << 20, ".yaml": 1 << 20, ".yml": 1 << 20, "": 1 << 20}  # with the most bytes that are read
PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".dill", ".cloudpickle", ".npy", ".npz", ".skops")
PROTOCOLS = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))  # pickles start with one
ZIP, HDF5, NPY = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY"
TAR, TAR_AT = b"ustar", 257  # with its position
ZLIB = (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")
COMPRESSED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    **dict.fromkeys((b"\xfd7zXZ\x00", b"]\x00\x00"), lzma.LZMAFile),
    **dict.fromkeys(ZLIB, lambda stream: need("joblib.compressor", extra="mlflow").BinaryZlibFile(stream)),
}
UNKNOWN = {
    TAR: "a tar archive",
    HDF5: "HDF5, which may contain Keras layers with code",
    b"\x04\x22\x4d\x18": "lz4 compression",
    b"\x28\xb5\x2f\xfd": "zstd compression",
}
STARTS = (ZIP, NPY, *COMPRESSED, *UNKNOWN)


def scan(model: str | Path, *, limits: Limits | None = None, report: Callable[[str], None] | None = None) -> Scan:
    """List what loading `model` would import or run, without running or unpickling any of it; needs no trust.

    model: a bundle folder, or any MLflow model URI, whose model is copied to a temporary folder for the scan.
    limits: used up by the scan.  report: called with progress messages.
    Raises MissingExtra, ModelNotFound, StoreUnreachable, UnsafeArchive, BundleTampered, BundleInvalid.
    """
    need("fickling.fickle", extra="mlflow")  # missing later, it would be the fault of a file
    contents = _Contents(Scan(without_secrets(str(model))), limits or Limits())
    if is_bundle(Path(model)):
        bundle = open_bundle(model)
        contents.found.digest = bundle.build
        files = {name: path for name, path in regular_files(bundle.path) if name != MANIFEST}
        for name in sorted(bundle.manifest.files.keys() - files):
            contents.unknown(name, "this copy of the bundle does not contain it")
        return contents.read(files)
    with scratch_folder("likewise-scratch-scan-") as folder:
        root = folder / "model"
        if report is not None:
            report(f"fetching {contents.found.model}")
        resolve(str(model), root)
        if (root / MLMODEL).is_file():
            with contents.reported(MLMODEL):
                for uri in read_model(root).references:
                    contents.unknown(without_secrets(uri), "loaded by the model; scan a bundle of it")
        return contents.read(dict(regular_files(root)) if root.is_dir() else {Path(model).name: root})


@dataclass
class _Contents:
    """Reads files one by one and collects what they contain."""

    found: Scan
    limits: Limits

    def read(self, files: Mapping[str, Path]) -> Scan:
        self.found.files = len(files)
        for name, path in files.items():
            with self.reported(name), path.open("rb") as stream:
                self._content(stream, name, 0)
        return self.found

    def unknown(self, name: str, why: str) -> None:
        self.found.not_analysed.append(Remark(plain(name), plain(why)))

    @contextmanager
    def reported(self, name: str) -> Iterator[None]:
        """List the file as not analysed if reading it fails for any reason."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  the content is hostile, and nothing may be skipped silently
            self.unknown(name, f"{type(error).__name__}: {error}")

    def _content(self, stream: IO[bytes], name: str, depth: int) -> None:
        """Read one file or, at a depth, the content of an archive or a compressed file."""
        reader = Reader(stream, self.limits, packed=depth > 0)
        path = PurePosixPath(name.rpartition("!")[2])
        suffix = path.suffix.lower()
        if suffix in CODE:
            self.found.code.append(Remark(plain(name), CODE[suffix]))
        head = reader.take(512)
        if suffix in PACKAGES or not (head or suffix in PICKLES):  # all of a package is code
            return
        if path.name == MLMODEL or (suffix and suffix in SETTINGS):
            with self.reported(name):
                self._settings(reader, name, suffix)
        tar = TAR if head.startswith(TAR, TAR_AT) else b""
        form = next((start for start in STARTS if head.startswith(start)), tar)
        self._pickles(reader, name, 0, marked=head.startswith(PROTOCOLS) or (not form and suffix in PICKLES))
        if form == HDF5 and depth > 0 and path.name == "model.weights.h5":  # in a Keras file: no layers
            return
        if form in UNKNOWN:
            raise NotClear(f"{UNKNOWN[form]} is not supported")
        if form == NPY:
            self._npy(reader, name)
        elif form or (depth == 0 and zipfile.is_zipfile(reader.stream)):
            self._unpack(reader, form, name, depth + 1)

    def _unpack(self, reader: Reader, form: bytes, name: str, depth: int) -> None:
        if depth > self.limits.depth:
            raise NotClear(f"nested more than {self.limits.depth} levels deep")
        reader.seek(0)
        if form in COMPRESSED:
            self._content(COMPRESSED[form](reader.stream), f"{name}!{PurePosixPath(name).name}", depth)
            return
        zip_file = need("fickling.loader", extra="mlflow").RelaxedZipFile  # reads what torch reads
        with tempfile.TemporaryFile() as copy:  # archives are read at many positions
            while depth > 1 and (chunk := reader.take(CHUNK)):
                copy.write(chunk)
            with zip_file(reader.stream if depth == 1 else copy) as archive:
                for info in archive.infolist():
                    self.limits.take("work", ITEM)
                    with self.reported(f"{name}!{info.filename}"), archive.open(info) as member:
                        self._content(member, f"{name}!{info.filename}", depth)

    def _npy(self, reader: Reader, name: str) -> None:
        reader.seek(0)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        *_, dtype = read[np.lib.format.read_magic(reader.stream)](reader.stream)
        if dtype.hasobject:
            self._pickles(reader, name, reader.stream.tell(), marked=True)

    def _pickles(self, reader: Reader, name: str, start: int, *, marked: bool) -> None:
        """Add names.  What is not `marked` as a pickle is only listed if it can be read to its end, or is dangerous."""
        found, error = names_in(reader, start, arrays=False)
        if WRAPPER in found:
            more, error_of_joblib = names_in(reader, start, arrays=True)
            error = error_of_joblib or (error if found.keys() - more.keys() else None)
            found |= more
        dangerous = any(level(each)[0] == "dangerous" for each in found)
        if error is None or marked or dangerous or isinstance(error, NotClear):
            self.found.imports += imports(name, found)
            if error is not None:
                self.unknown(name, f"no readable pickle at byte {reader.position}: {type(error).__name__}: {error}")

    def _settings(self, reader: Reader, name: str, suffix: str) -> None:
        """Add the code that a JSON or YAML file names, and the classes in the schema of a skops or Keras file."""
        reader.seek(0)
        text = reader.take(SETTINGS[suffix] + 1)
        if len(text) > SETTINGS[suffix]:
            raise NotClear(f"a text of more than {SETTINGS[suffix] >> 20} MiB")
        mappings = _mappings((json.loads if suffix == ".json" else need("yaml", extra="mlflow").safe_load)(text))
        texts = dict.fromkeys(each for some in mappings for each in _texts(some))
        self.found.code += [Remark(plain(name), plain(each)) for each in texts]
        self.found.imports += imports(name, dict.fromkeys(each for some in mappings for each in _classes(some)))


def _mappings(document: object) -> list[Mapping[Any, Any]]:
    """All mappings in a document, each once: aliases in YAML can repeat one any number of times."""
    pending, seen = [document], dict[int, Any]()
    while pending:
        value = pending.pop()
        if isinstance(value, dict | list) and id(value) not in seen:
            seen[id(value)] = value
            pending += value.values() if isinstance(value, dict) else value
    return [each for each in seen.values() if isinstance(each, dict)]


def _texts(mapping: Mapping[Any, Any]) -> Iterator[str]:
    if mapping.get("class_name") == "Lambda":
        yield "a Keras Lambda layer, whose code is in the file"
    for key in ("auto_map", "trust_remote_code"):
        if mapping.get(key) not in (None, False, "false", {}):
            yield f"{key}: transformers loads Python files"
    if isinstance(path := mapping.get("model_code_path"), str):
        yield f"model_code_path: MLflow runs {path}"
    if isinstance(module := mapping.get("loader_module"), str) and not module.startswith("mlflow."):
        yield f"loader_module: MLflow imports {module}"


def _classes(mapping: Mapping[Any, Any]) -> Iterator[Name]:
    """The class or function that a skops schema, or the configuration of a Keras 3 model, names."""
    for keys in (("__module__", "__class__"), ("module", "class_name"), ("module", "config")):
        module, name = map(mapping.get, keys)
        if isinstance(module, str) and isinstance(name, str):
            yield Name(module, name)
