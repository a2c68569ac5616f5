"""Suites that other packages run against their own targets, for pytest: `pip install 'likewise[testing]'`."""
