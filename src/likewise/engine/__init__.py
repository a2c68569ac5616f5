"""Engines: where items become answers."""
