"""Builds bundles from model URIs: resolve, trace, vendor, prove."""
