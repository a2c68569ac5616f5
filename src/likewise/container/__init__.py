"""What runs in an image: the web service under SageMaker's container contract. `python -m likewise.container serve`."""
