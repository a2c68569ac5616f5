"""Jobs on several machines: chunk files on shared storage, scored by any worker, assembled by the driver."""
