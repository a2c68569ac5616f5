"""The chapter's example: fine-tune a sentiment classifier, log the pipeline around it, register it."""
