"""Commonly used servers with the demo's pipeline, each in a dedicated environment (`requirements-*.txt`).

These modules do not import Likewise, since it is not installed in those environments (except for `spark_job`).
"""
