"""How a model calls a module: the arguments of `forward`, and what it returns."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from likewise.core.errors import BundleInvalid
from likewise.core.extras import need
from likewise.engine.openvino_graph import Arrays, Texts
from likewise.engine.text.cascade import Cascade
from likewise.engine.text.compiled import Calibration

METADATA = "module.json"
FORMAT = 1
MASK = "attention_mask"
TENSOR, TUPLE = "tensor", "tuple"
KIND = re.compile(r"[A-Za-z0-9]+Output(With[A-Za-z]+)?")
"""Names of the classes of `transformers.modeling_outputs`."""
OUTPUTS = "transformers.modeling_outputs"
SCALARS = (bool, int, float, str)

Arguments = Mapping[str, Any]


class NotCovered(Exception):
    """Why a call cannot be computed by a graph; the original computes it. reason: without the values of this call."""

    def __init__(self, reason: str, details: str = "") -> None:
        super().__init__(f"{reason} ({details})" if details else reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Call:
    """One call: arrays by argument, the other arguments that are not None, and what was returned.

    kind: TENSOR, TUPLE, or the name of a class of transformers.  outputs: arrays by name.
    """

    inputs: Mapping[str, NDArray[Any]]
    constants: Mapping[str, object]
    kind: str
    outputs: Mapping[str, NDArray[Any]]

    @property
    def shape(self) -> tuple[object, ...]:
        """What calls of one form have in common."""
        arrays = tuple((name, str(each.dtype), each.ndim) for name, each in self.inputs.items())
        return arrays, tuple(sorted(self.constants.items())), self.kind, tuple(self.outputs)


@dataclass(frozen=True, slots=True)
class Form:
    """The calls that a graph covers; written to `module.json` next to it.

    module: the name of the class.  inputs: the arguments that are tensors.  dtypes: of each.  limits: all values of the
    input are at least 0 and below it, None for any.  axes: the accepted lengths of the axes after the first; None for
    texts.  longest: tokens of a text; None for other inputs.  kind, outputs: see `Call`.  per_token: outputs with a
    vector per token.  calibration: of a classifier in bf16.  cascade: by which it may classify, if the user accepts
    other labels.  vectors: whether the outputs in bf16 are close to those in fp32.
    """

    module: str
    inputs: tuple[str, ...]
    dtypes: tuple[str, ...]
    limits: tuple[int | None, ...]
    axes: tuple[tuple[tuple[int, ...], ...], ...] | None
    longest: int | None
    constants: Mapping[str, object]
    kind: str
    outputs: tuple[str, ...]
    per_token: tuple[str, ...] = ()
    calibration: Calibration | None = None
    cascade: Cascade | None = None
    vectors: bool = False

    @property
    def texts(self) -> Texts | None:
        """For `open_graph`."""
        if self.longest is None:
            return None
        per_token = frozenset(self.outputs.index(name) for name in self.per_token)
        return Texts(self.inputs.index(MASK), self.longest, per_token)

    @property
    def fast(self) -> bool:
        """Whether bf16 is offered."""
        return self.vectors or (self.calibration is not None and not self.calibration.refused)

    def arrays(self, arguments: Arguments) -> list[NDArray[Any]]:
        """The inputs of the graph for the arguments of `forward`; raises NotCovered."""
        given = dict(arguments)
        tensors = [given.pop(name, None) for name in self.inputs]
        if any(tensor is None for tensor in tensors) or given != self.constants:
            other = sorted({*arguments} ^ {*self.inputs, *self.constants})
            raise NotCovered("it was called with other arguments", ", ".join(other) or "other values")
        arrays = [_array(tensor) for tensor in tensors]
        for name, array, dtype, limit in zip(self.inputs, arrays, self.dtypes, self.limits, strict=True):
            if str(array.dtype) != dtype or not array.size:
                raise NotCovered(f"{name} is of another type", f"{array.dtype} of the shape {array.shape}")
            if limit is not None and not (array.min() >= 0 and array.max() < limit):
                raise NotCovered(f"{name} has other values", f"from {array.min()} to {array.max()}")
        self._check_shapes(arrays)
        return arrays

    def returned(self, values: Arrays) -> Any:
        """The value that `forward` returns for the outputs of the graph."""
        torch = need("torch", extra="torch")
        tensors = [torch.from_numpy(value) for value in values]
        if self.kind == TENSOR:
            return tensors[0]
        if self.kind == TUPLE:
            return tuple(tensors)
        return getattr(sys.modules[OUTPUTS], self.kind)(**dict(zip(self.outputs, tensors, strict=True)))

    def write(self, folder: Path) -> None:
        """Write `module.json` into `folder`."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True)
        (folder / METADATA).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Form:
        """Read `module.json` from `folder`; raises BundleInvalid if it is missing or in an unsupported format."""
        try:
            raw = json.loads((folder / METADATA).read_text(encoding="utf-8"))
            if raw.pop("format") != FORMAT:
                raise ValueError(f"not format {FORMAT}")
            calibration, cascade, axes = (raw.pop(name) for name in ("calibration", "cascade", "axes"))
            lists: dict[str, Any] = {
                name: tuple(raw.pop(name)) for name in ("inputs", "dtypes", "limits", "outputs", "per_token")
            }
            form = cls(
                **lists,
                **raw,
                axes=None if axes is None else tuple(tuple(map(tuple, lengths)) for lengths in axes),
                calibration=None if calibration is None else Calibration(**calibration),
                cascade=None if cascade is None else Cascade(**cascade),
            )
            if form.kind not in (TENSOR, TUPLE) and not KIND.fullmatch(form.kind):
                raise ValueError(f"unknown kind of output {form.kind!r}")
            return form
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleInvalid(
                f"{folder / METADATA} is not valid: {error}",
                remedy="bundle the model again with this version: likewise bundle MODEL -o DIR",
            ) from error

    def _check_shapes(self, arrays: Arrays) -> None:
        if self.axes is not None:
            if tuple(array.shape[1:] for array in arrays) not in self.axes:
                raise NotCovered("its inputs have other shapes", str([array.shape for array in arrays]))
            return
        mask = arrays[self.inputs.index(MASK)]
        if mask.ndim == 2 and mask.shape[1] > (self.longest or 0):
            raise NotCovered(f"a text has more than {self.longest} tokens")
        if mask.ndim != 2 or any(array.shape != mask.shape for array in arrays):
            raise NotCovered("its inputs have other shapes", str([array.shape for array in arrays]))
        if not mask.any(axis=1).all():
            raise NotCovered("the mask of a text is empty")


def arguments_of(forward: Callable[..., Any]) -> Callable[[tuple[Any, ...], Arguments], dict[str, Any]]:
    """A function that gives positional and keyword arguments of `forward` their names, without those that are None."""
    parameters = inspect.signature(forward).parameters.values()
    names = [each.name for each in parameters if each.kind is not inspect.Parameter.VAR_POSITIONAL]

    def named(args: tuple[Any, ...], kwargs: Arguments) -> dict[str, Any]:
        if len(args) > len(names):
            raise NotCovered("it was called with more positional arguments than it names")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return {name: value for name, value in given.items() if value is not None}

    return named


def observed(arguments: Arguments, returned: Any) -> Call:
    """A call as a `Call`, with copies of its arrays; raises NotCovered if no graph could compute it."""
    torch = need("torch", extra="torch")
    tensors = {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}
    constants = {name: value for name, value in arguments.items() if name not in tensors}
    if not tensors:
        raise NotCovered("it was called without tensors")
    if strange := [name for name, value in constants.items() if type(value) not in SCALARS]:
        raise NotCovered(f"it was called with {strange[0]}, a {type(constants[strange[0]]).__name__}")
    kind, outputs = _outputs(returned)
    if not all(isinstance(value, torch.Tensor) and value.is_floating_point() for value in outputs.values()):
        raise NotCovered(f"it returned a {type(returned).__name__} with other values than tensors of numbers")
    copies = {name: _array(value).copy() for name, value in tensors.items()}
    return Call(copies, constants, kind, {name: _array(value).copy() for name, value in outputs.items()})


def _outputs(returned: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(returned, need("torch", extra="torch").Tensor):
        return TENSOR, {"0": returned}
    if type(returned) is tuple:
        return TUPLE, {str(at): value for at, value in enumerate(returned)}
    kind = type(returned)
    if getattr(sys.modules.get(OUTPUTS), kind.__name__, None) is not kind or not KIND.fullmatch(kind.__name__):
        raise NotCovered(f"it returned a {kind.__name__}")
    return kind.__name__, dict(returned.items())


def _array(tensor: Any) -> NDArray[Any]:
    """The tensor as an array, which may share its memory; raises NotCovered for one elsewhere than in this memory."""
    torch = need("torch", extra="torch")
    if not isinstance(tensor, torch.Tensor) or tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        raise NotCovered(f"an argument is a {type(tensor).__name__}, not a tensor on the CPU")
    if tensor.dtype not in (torch.float32, torch.int64, torch.int32, torch.bool):
        raise NotCovered(f"an argument is of {tensor.dtype}")
    array: NDArray[Any] = tensor.detach().numpy()
    return array


def same_texts(calls: Sequence[Call]) -> bool:
    """Whether the calls are of texts: ids of tokens [batch, length], and a mask of the same shape."""
    return all(
        MASK in call.inputs
        and all(each.dtype == np.int64 and each.ndim == 2 for each in call.inputs.values())
        and len({each.shape for each in call.inputs.values()}) == 1
        for call in calls
    )
