"""Hands every torch module that a model loads, with transformers or MLflow, to a watcher."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from likewise.core.extras import need

Watcher = Callable[[Any], None]

_watcher: ContextVar[Watcher | None] = ContextVar("loading_watcher", default=None)
_lock = threading.Lock()
_patched: set[str] = set()


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """In this context, call `watcher` with each module that `from_pretrained` of transformers or MLflow returns."""
    _patch()
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def fingerprint(module: Any) -> str:
    """Identifies a module by its class and its weights."""
    torch = need("torch", extra="torch")
    digest = hashlib.sha256(f"{type(module).__module__}.{type(module).__qualname__}".encode())
    for name, value in module.state_dict().items():
        if not isinstance(value, torch.Tensor):
            continue
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _patch() -> None:
    """Wrap the loaders of the libraries that are installed, once per process."""
    with _lock:
        if "transformers" not in _patched and importlib.util.find_spec("transformers") is not None:
            loader = need("transformers", extra="torch").PreTrainedModel
            loader.from_pretrained = classmethod(_watched(loader.from_pretrained.__func__))
            _patched.add("transformers")
        if "mlflow" not in _patched:
            pytorch: Any = need("mlflow.pytorch", extra="mlflow")
            pytorch._load_model = _watched(pytorch._load_model)
            _patched.add("mlflow")


def _watched(load: Callable[..., Any]) -> Callable[..., Any]:
    """`load`, whose result is handed to the watcher of the context, but not what it loads itself on the way."""

    @wraps(load)
    def loaded(*args: Any, **kwargs: Any) -> Any:
        watcher = _watcher.get()
        if watcher is None:
            return load(*args, **kwargs)
        token = _watcher.set(None)
        try:
            found = load(*args, **kwargs)
        finally:
            _watcher.reset(token)
        watcher(found[0] if isinstance(found, tuple) else found)  # with output_loading_info=True
        return found

    return loaded
