"""`python -m likewise.cli`, for environments in which the `likewise` script is not on the PATH."""

from likewise.cli import main

main()
