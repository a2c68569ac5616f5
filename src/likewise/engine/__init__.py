"""Engines, which turn items into answers, and the interface that adds another kind."""
