"""The command-line interface: the only package that prints, prompts or exits the process."""

from likewise.core.cores import limit_threads


def main() -> None:
    """Run the `likewise` command and exit the process; see `likewise.cli.app.main`."""
    limit_threads()  # before any library is loaded
    from likewise.cli.app import main as run

    run()
