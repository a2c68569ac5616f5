"""The target `sagemaker`: a bundle behind an endpoint of Amazon SageMaker, or through a batch transform job."""
