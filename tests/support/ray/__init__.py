"""A Ray cluster for the tests, deployments on it, and callers of them."""
