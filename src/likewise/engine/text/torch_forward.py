"""The reference forward pass: torch in fp32 on the CPU. Every other engine is compared with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from likewise.core.errors import ModelInvalid
from likewise.core.extras import need
from likewise.engine.text.checkpoint import REMEDY, Checkpoint

Forward = Callable[..., NDArray[np.float32]]
"""The function that a runtime provides: (ids [n, length], mask [n, length] of 0 and 1) -> logits [n, labels].

It must be thread-safe, and rows must be independent.
"""


def open_torch(checkpoint: Checkpoint) -> Forward:
    """Load the weights, only from safetensors and never with code from the checkpoint.

    Raises ModelInvalid if transformers rejects them or weights are missing (a backbone without fine-tuning),
    MissingExtra without torch or transformers.
    """
    return torch_pass(load_torch(checkpoint))


def torch_pass(model: Any) -> Forward:
    """The forward pass of a module that `load_torch` has loaded."""
    torch = need("torch", extra="torch")

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits
        values: NDArray[np.float32] = logits.numpy()
        return values

    return forward


def load_torch(checkpoint: Checkpoint) -> Any:
    """The module in fp32, for inference; raises what `open_torch` does."""
    torch, transformers = need("torch", extra="torch"), need("transformers", extra="torch")
    try:
        with _quiet(transformers.utils.logging):
            model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
                checkpoint.weights,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # OSError, ValueError, SafetensorError, …: the libraries have no common class
        raise ModelInvalid(f"{checkpoint.weights}: transformers cannot load it: {error}", remedy=REMEDY) from error
    if missing := sorted(info["missing_keys"]):
        raise ModelInvalid(f"{checkpoint.weights}: weights are missing: {', '.join(missing[:3])}", remedy=REMEDY)
    return model.eval()


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Disable the progress bar for loading local files, and restore the user's setting afterwards."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
