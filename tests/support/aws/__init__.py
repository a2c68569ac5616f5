"""An AWS account on this machine for tests: Likewise's emulator of SageMaker, and moto for all other services."""
