"""A Ray cluster for the tests, deployments on it, and concurrent clients of them."""
