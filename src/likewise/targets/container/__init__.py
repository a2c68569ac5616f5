"""The target `container`: serves a bundle in a Docker or Podman container on this machine."""
