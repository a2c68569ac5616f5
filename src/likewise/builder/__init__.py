"""From a model URI to a bundle: resolve, trace, vendor, prove."""
