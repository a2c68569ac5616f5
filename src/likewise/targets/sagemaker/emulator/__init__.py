"""An emulator of SageMaker on this machine for rehearsals: AWS's protocol, with real containers behind it."""

# ruff: noqa: E402

from likewise.core.extras import need

for _library in ("botocore", "werkzeug", "moto"):
    need(_library, extra="rehearsal")

from likewise.targets.sagemaker.emulator.containers import ContainerRunner
from likewise.targets.sagemaker.emulator.proxy import tls_context
from likewise.targets.sagemaker.emulator.server import Emulator, rehearsal

__all__ = ["ContainerRunner", "Emulator", "rehearsal", "tls_context"]
