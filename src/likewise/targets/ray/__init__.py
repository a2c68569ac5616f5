"""The target `ray`: Likewise's server, with data plane and engine, in replicas of Ray Serve."""
