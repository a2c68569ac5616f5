"""Builds bundles from model URIs: resolve, vendor, trace, compile, verify."""
