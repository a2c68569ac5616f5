"""The target `sagemaker`: serves a bundle from an Amazon SageMaker endpoint or runs it as a batch transform job."""
