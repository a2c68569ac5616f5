"""`python -m likewise.cli`, for places where the `likewise` script is not on the path."""

from likewise.cli.app import main

main()
