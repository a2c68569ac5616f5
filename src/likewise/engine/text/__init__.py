"""The text engine: texts in, labels with scores out; tokenization apart from the forward pass.

Only the forward pass differs between precisions and runtimes, so it alone is exchangeable: `TextEngine` takes any
`Forward`, and `open_torch` makes the reference one, in torch and fp32.
"""

from likewise.engine.text.checkpoint import Checkpoint, find_checkpoint
from likewise.engine.text.engine import Encoding, Prediction, TextEngine
from likewise.engine.text.torch_forward import Forward, open_torch

__all__ = ["Checkpoint", "Encoding", "Forward", "Prediction", "TextEngine", "find_checkpoint", "open_torch"]
