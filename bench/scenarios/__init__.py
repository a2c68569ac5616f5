"""The endurance scenarios of `bench.soak`, one subject a module."""
