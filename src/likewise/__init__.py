"""Likewise: one MLflow model, every place where it must answer, the same answer from each."""
