"""The endurance scenarios of `bench.soak`, one module per subject."""
