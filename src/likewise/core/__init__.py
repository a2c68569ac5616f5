"""Items, results, errors, digests, windows, isolation: what every other room speaks. Standard library only."""
