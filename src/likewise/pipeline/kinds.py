"""The engine kinds for declared pipelines: torch, as logged, and OpenVINO, compiled when the bundle is built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.engine.kinds import CompiledEngines, CompileRequest, EngineKind, ModelFacts
from likewise.engine.openvino_image import IMAGE

if TYPE_CHECKING:
    from likewise.pipeline.engine import PipelineEngine

WEIGHTS = frozenset({".safetensors", ".bin", ".pt"})


class DeclaredKind(EngineKind):
    """Base class of kinds that run a declared pipeline without the model's own code."""

    runs_code = False

    def open(self, bundle: Bundle, entry: EngineEntry) -> PipelineEngine:
        """See `PipelineEngine.load`."""
        from likewise.pipeline.engine import PipelineEngine

        return PipelineEngine.load(bundle, entry)

    def unread(self, bundle: Bundle) -> Sequence[str]:
        """The modules that were logged with the model."""
        return sorted(name for name in bundle.manifest.files if name.startswith("model/code/"))


class TorchKind(DeclaredKind):
    """Runs a declared pipeline with torch in fp32."""

    name = "torch"
    requirements = ("likewise[torch]",)
    library = "torch"
    purpose = "the reference engine"

    def takes(self, model: ModelFacts) -> bool:
        """Whether the model declares a pipeline."""
        return bool(model.pipeline)

    def offers(self, model: ModelFacts) -> Sequence[EngineEntry]:  # noqa: ARG002  the same for all pipelines
        """The engine `torch/fp32`."""
        return (EngineEntry(self.name, "fp32"),)


class OpenVINOKind(DeclaredKind):
    """Runs a declared pipeline with compiled classifiers, in fp32 or in bf16 with borderline results recomputed."""

    name = "openvino"
    requirements = ("likewise[openvino]",)
    library = "openvino"
    purpose = "the fast engine: OpenVINO in bf16 with a guard, or in fp32"
    image = IMAGE

    def takes(self, model: ModelFacts) -> bool:
        """Whether the model declares a pipeline with a `Classify` step."""
        from likewise.pipeline.pipeline import classifiers

        return bool(classifiers(model.pipeline))

    def compile(self, bundle: Bundle, request: CompileRequest) -> CompiledEngines:
        """Compile the classifiers of the declared pipeline; see `likewise.pipeline.compile`."""
        from likewise.pipeline.compile import compile_engines

        return compile_engines(bundle, request)

    def unread(self, bundle: Bundle) -> Sequence[str]:
        """Also the original weights, from which the classifiers were compiled."""
        names = (name for name in bundle.manifest.files if name.startswith("references/"))
        weights = sorted(name for name in names if PurePosixPath(name).suffix in WEIGHTS)
        return [*super().unread(bundle), *weights]
