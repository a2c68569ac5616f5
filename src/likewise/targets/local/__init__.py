"""The target `local`: a supervised background service on this machine, updated without dropping requests."""
