"""Multi-step inference pipelines that are logged as ordinary MLflow models.

    pipeline = Pipeline(Cache(size=100), DetectLanguage(), Classify("runs:/…/model"), Respond())
    log_model(pipeline)

A custom step is a small dataclass with a method: see `Step`.
"""

from likewise.pipeline.log import Logged, log_model, save_model
from likewise.pipeline.pipeline import Pipeline
from likewise.pipeline.steps import Cache, Classify, DetectLanguage, Opening, Respond, Rows, Step

__all__ = [
    "Cache",
    "Classify",
    "DetectLanguage",
    "Logged",
    "Opening",
    "Pipeline",
    "Respond",
    "Rows",
    "Step",
    "log_model",
    "save_model",
]
