"""Spark: a UDF, columns of predictions on batch and streaming frames, and a runner for jobs over files and tables."""
