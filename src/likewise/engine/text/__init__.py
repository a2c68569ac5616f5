"""The text engine: classifies texts into labels with scores, with tokenization separate from the forward pass.

Only the forward pass differs between precisions and runtimes: `TextEngine` takes any `Forward`, and `open_torch`
creates the reference one, with torch in fp32.
"""

from likewise.engine.text.checkpoint import Checkpoint, find_checkpoint
from likewise.engine.text.engine import Encoding, Prediction, TextEngine
from likewise.engine.text.torch_forward import Forward, open_torch

__all__ = ["Checkpoint", "Encoding", "Forward", "Prediction", "TextEngine", "find_checkpoint", "open_torch"]
