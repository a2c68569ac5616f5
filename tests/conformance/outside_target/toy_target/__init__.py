"""A target for Likewise that runs each deployment as a process on this machine (Linux)."""
