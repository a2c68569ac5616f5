"""The target `container`: a bundle in a container of Docker's or Podman's on this machine."""
