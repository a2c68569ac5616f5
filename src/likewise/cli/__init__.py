"""The command line: the only package that prints, prompts or exits."""

from likewise.cli.app import main

__all__ = ["main"]
