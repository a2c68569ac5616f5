"""A target for Likewise: each deployment is a process of this machine (Linux)."""
