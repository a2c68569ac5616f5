"""Basic types and functions for all other packages: items, results, errors, digests. Standard library only."""
