"""The web service in a container image, under SageMaker's container contract: `python -m likewise.container serve`."""
