"""Container images of a bundle, assembled without a daemon: base, environment and bundle, a layer each."""
