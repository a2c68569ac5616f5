"""Container images built from bundles without a daemon; base, environment and bundle are separate layers."""
