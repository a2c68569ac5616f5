"""What MLflow runs to load a logged pipeline ("models from code"); the pipeline itself is the model's configuration."""

from mlflow.models import ModelConfig, set_model

from likewise.pipeline.model import PipelineModel

set_model(PipelineModel(ModelConfig().to_dict()))
