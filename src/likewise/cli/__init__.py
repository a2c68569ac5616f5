"""The command line: the only room that prints, asks or exits."""

from likewise.cli.app import main

__all__ = ["main"]
