"""The engine kinds that run a model as it was logged, but with compiled modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import CHECKPOINTS, Bundle
from likewise.core.cores import usable_threads
from likewise.engine.accelerate.modules import CompiledModules
from likewise.engine.code_free import flavor_of, known_why_code
from likewise.engine.flavor import TORCH, FlavorKind
from likewise.engine.kinds import CompiledEngines, CompileRequest, EngineKind, ModelFacts
from likewise.engine.openvino_image import IMAGE
from likewise.engine.pyfunc import PyfuncEngine, PyfuncKind, declares
from likewise.engine.versions import mlmodel_of

if TYPE_CHECKING:
    from likewise.engine.accelerate.texts.engine import TextModelEngine

BATCH = 64  # texts that a pipeline passes to its module together; the graph leaves their padding out


class _Compiled(PyfuncKind):
    """Base class: opens the model while the modules that it loads are watched.

    native: the kind that runs the model as it was logged.  texts: see `compile_modules`.  lanes: see `open_graph`; None
    if the model gets batches.
    """

    requirements = ("likewise[mlflow,openvino]",)
    library = "openvino"
    native = ""
    texts: str | None = None
    lanes: int | None = None

    def offers(self, model: ModelFacts) -> Sequence[EngineEntry]:  # noqa: ARG002  only what `compile` has compared
        return ()

    def compile(self, bundle: Bundle, request: CompileRequest) -> CompiledEngines:
        """Compile what the model loads; see `compile_modules`."""
        from likewise.engine.accelerate.compile import compile_modules

        return compile_modules(self.name, self.native, bundle, request, texts=self.texts)

    def approximate(self, entry: EngineEntry) -> bool:  # noqa: ARG002  also in fp32, whose sums have another order
        """True: `compile` has compared them."""
        return True

    def open(
        self, bundle: Bundle, entry: EngineEntry, model_config: Mapping[str, object] | None = None
    ) -> PyfuncEngine:
        """Open the model with compiled modules.

        Raises EngineUnavailable if this CPU cannot run them, and what opening the model raises.
        """
        engine = super().open(bundle, entry, model_config)
        if self.lanes is None:
            _in_batches(engine.model)
        return engine

    def _context(self, bundle: Bundle, entry: EngineEntry) -> CompiledModules:
        folder = bundle.path / "engine" / self.name
        return CompiledModules(folder, entry.precision, lanes=self.lanes, code=super()._context(bundle, entry))


class CompiledFlavorKind(_Compiled, FlavorKind):
    """Runs a model of transformers or sentence-transformers without code, with compiled modules."""

    name = "flavor-openvino"
    purpose = "run models of transformers and sentence-transformers compiled"
    native = FlavorKind.name
    texts = "text-openvino"

    def takes(self, model: ModelFacts) -> bool:
        """Whether the model is of one of these flavours, and holds no code."""
        return flavor_of(model.flavors) in TORCH and super().takes(model)


class TextKind(EngineKind):
    """Runs a classifier or encoder of texts of these flavours with neither their libraries nor torch.

    `CompiledFlavorKind` compiles it, where that gives the same predictions.
    """

    name = "text-openvino"
    runs_code = False
    requirements = ("likewise[openvino]",)
    library = "openvino"
    purpose = "run text classifiers and sentence encoders without torch"
    image = IMAGE

    def takes(self, model: ModelFacts) -> bool:
        """Whether the model is of one of these flavours, and holds no code."""
        return flavor_of(model.flavors) in TORCH and known_why_code(model.folder) is None

    def approximate(self, entry: EngineEntry) -> bool:  # noqa: ARG002  also in fp32, whose sums have another order
        """True: it was compared when it was compiled."""
        return True

    def open(self, bundle: Bundle, entry: EngineEntry) -> TextModelEngine:
        """Open the graph and the tokenizer; see `TextModelEngine`."""
        from likewise.engine.accelerate.texts.engine import TextModelEngine

        folder = bundle.path / "engine" / self.name
        rows = bundle.manifest.row_wise
        return TextModelEngine(folder, entry, bundle.signature, row_wise=rows, slots=usable_threads())

    def unread(self, bundle: Bundle) -> Sequence[str]:
        """The original weights, from which it was compiled, and the tokenizer, of which it has a copy."""
        return sorted(name for name in bundle.manifest.files if name.startswith(CHECKPOINTS))


class CompiledPyfuncKind(_Compiled):
    """Runs a model with its own code, with compiled modules, if the user or the model requests it."""

    name = "pyfunc-openvino"
    purpose = "compile what a model's own code loads (--accelerate)"
    native = PyfuncKind.name
    lanes = 1  # such code mostly predicts one row after the other

    def takes(self, model: ModelFacts) -> bool:
        """Whether the model has code, and the `python_function` flavor."""
        return super().takes(model) and known_why_code(model.folder) is not None

    def compile(self, bundle: Bundle, request: CompileRequest) -> CompiledEngines:
        """Compile what the model loads, if `--accelerate` or its metadata requests it, or its flavour is known."""
        declared = declares(mlmodel_of(bundle.model_path).get("metadata"), "accelerate")
        wanted = request.options.accelerate or declared or flavor_of(request.model.flavors) in TORCH
        return super().compile(bundle, request) if wanted else CompiledEngines()


def _in_batches(model: Any) -> None:
    """Let a text classification pipeline of transformers pass BATCH texts at once, if its tokenizer can pad them."""
    pipeline: Any = getattr(getattr(model, "_model_impl", None), "pipeline", None)
    if type(pipeline).__name__ == "TextClassificationPipeline" and pipeline.tokenizer.pad_token is not None:
        pipeline._batch_size = BATCH
