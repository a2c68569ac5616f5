"""The example: fine-tune a sentiment classifier, log a pipeline that uses it, register the pipeline."""
