"""A service of its own on this machine, kept alive, changed without a dropped request."""
