"""Containers for tests: one Docker daemon, one registry, one base image and one environment per engine in each run."""
