"""Benchmarks of Likewise and of other tools with the same model and texts, in one run."""
