"""The command-line interface: the only package that prints, prompts or exits the process."""

from likewise.core.cores import limit_threads

_is_program = False  # else `likewise.cli.app.main` was called in a process that is not the command's own, as by tests


def main() -> None:
    """Run the `likewise` command and exit the process; see `likewise.cli.app.main`."""
    global _is_program
    _is_program = True
    limit_threads()  # before any library is loaded
    from likewise.cli.app import main as run
    from likewise.core.isolation import refuse_exit

    refuse_exit()
    run()


def end_in_time(limit_s: float) -> None:
    """See `likewise.core.ending.end_in_time`."""
    if _is_program:
        from likewise.core import ending

        ending.end_in_time(limit_s)
