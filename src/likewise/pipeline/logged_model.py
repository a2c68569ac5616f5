"""The script with which MLflow loads a logged pipeline ("models from code"); the pipeline is its model config."""

from mlflow.models import ModelConfig, set_model

from likewise.pipeline.model import PipelineModel

set_model(PipelineModel(ModelConfig().to_dict()))
