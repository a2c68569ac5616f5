"""Ray Serve: our data plane and engine in its replicas."""
