"""What pytest must know of this folder."""

collect_ignore = ["outside_target"]  # another package's tests, which test_outside_target.py runs as their owner does
