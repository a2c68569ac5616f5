"""Benchmarks: ours beside what people use today, same model, same texts, one run."""
