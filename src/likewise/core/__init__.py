"""Items, results, errors, digests, windows, isolation: what every other package uses. Standard library only."""
