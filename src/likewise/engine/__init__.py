"""Engines, which compute predictions, and the interface for adding new kinds of engines."""
