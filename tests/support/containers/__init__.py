"""Containers for tests: one Docker daemon, one registry, one base image and one environment of each kind a run."""
