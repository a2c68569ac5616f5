"""Conformance suites for pytest, which other packages run for their targets: `pip install 'likewise[testing]'`."""
