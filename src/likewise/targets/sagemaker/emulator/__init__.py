"""SageMaker on this machine, to rehearse a deployment before it costs: its wire, and real containers behind it."""

# ruff: noqa: E402

from likewise.core.extras import need

for _library in ("botocore", "werkzeug", "moto"):
    need(_library, extra="rehearsal")

from likewise.targets.sagemaker.emulator.containers import ContainerRunner, found_runner
from likewise.targets.sagemaker.emulator.faults import Call, Fault
from likewise.targets.sagemaker.emulator.processes import ProcessRunner
from likewise.targets.sagemaker.emulator.runner import Runner
from likewise.targets.sagemaker.emulator.server import Emulator, rehearsal

__all__ = ["Call", "ContainerRunner", "Emulator", "Fault", "ProcessRunner", "Runner", "found_runner", "rehearsal"]
