"""The command-line interface: the only package that prints, prompts or exits the process."""

from likewise.cli.app import main

__all__ = ["main"]
