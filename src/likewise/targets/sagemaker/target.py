"""The target `sagemaker`: an endpoint of Amazon SageMaker, its configuration and its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, ClassVar

from likewise.bundles.open import is_bundle, open_bundle
from likewise.core.errors import WrongUsage
from likewise.core.option_fields import coerce, described
from likewise.core.spec import ModelSpec
from likewise.targets.base import Answer, Done, Finding, JsonValue, Outputs, PlanStep, Receipt, Stage, Status, Verb
from likewise.targets.sagemaker import discovery, inspection, invocation, plan, rehearse
from likewise.targets.sagemaker.actions import ACTIONS
from likewise.targets.sagemaker.address import SageMakerAddress
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.failures import KINDS
from likewise.targets.sagemaker.names import check_name
from likewise.targets.sagemaker.polling import Patience
from likewise.targets.sagemaker.requirements import check_requests
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions
from likewise.targets.sagemaker.transform import transform
from likewise.targets.sagemaker.transform_options import TransformOptions, split
from likewise.targets.trust import needs_trust


class SageMakerTarget:
    """SageMaker in the region of the URI, or in that which AWS's own settings name.

    progress: gets a line whenever what is waited for has changed.
    """

    Options: ClassVar[type[SageMakerOptions]] = SageMakerOptions

    def __init__(self, uri: str) -> None:
        self.at = SageMakerAddress.of(uri)
        self.uri = self.at.uri
        self.progress: Callable[[str], None] = lambda _: None
        self._asked: dict[SageMakerAddress, Aws] = {}

    # --- plans -------------------------------------------------------------------------------------------------------

    def check(self, model: ModelSpec, options: SageMakerOptions) -> Sequence[Finding]:
        """Every request against AWS's own model of it, then whether what they name is there.

        Raises WrongUsage for an option that AWS would refuse, TargetUnavailable where nobody is logged in, and what
        `open_bundle` raises.
        """
        at = self._at(options)
        check_requests(model, options)
        if is_bundle(model.folder):
            open_bundle(model.folder)  # byte for byte, as its digest is what the tags will say
        if needs_trust(model):
            return [Finding("the model runs its own Python code, which nobody has allowed", "add --trust")]
        aws = self._aws(at)
        inspection.account(aws)
        return _seen(aws, options)

    def plan(
        self, verb: Verb, name: str, model: ModelSpec | None, options: SageMakerOptions, current: Receipt | None
    ) -> Sequence[PlanStep]:
        """Raises AlreadyDeployed, NotDeployed, WrongUsage, DeployFailed, TargetUnavailable."""
        check_name(name)
        at = self._at(options)
        aws = self._aws(at)
        if verb == "delete":
            return plan.delete_steps(aws, at, name, options, current)
        assert model is not None  # noqa: S101  only a deletion has none
        asked = plan.EndpointSpec(at, name, model, options)
        return plan.create_steps(aws, asked) if verb == "create" else plan.update_steps(aws, asked)

    def do(self, action: str, params: Mapping[str, JsonValue]) -> Outputs:
        """Do one step; see `actions`."""
        done, _ = self._action(action)
        return done(self._aws(SageMakerAddress(**params["at"])), self.patience, params) or {}

    def undo(self, action: str, params: Mapping[str, JsonValue]) -> None:
        """Take back what this very step has made; what was there before it stays."""
        _, undone = self._action(action)
        undone(self._aws(SageMakerAddress(**params["at"])), self.patience, params)

    # --- what stands -------------------------------------------------------------------------------------------------

    def status(self, receipt: Receipt) -> Status:
        """As SageMaker says."""
        return discovery.status_of(self.aws_of(receipt), receipt.name)

    def predict(self, receipt: Receipt, body: bytes, content_type: str) -> Answer:
        """What the container says, by InvokeEndpoint; NotDeployed, TargetUnavailable, BodyTooLarge, WrongUsage."""
        return invocation.invoke(self.aws_of(receipt), receipt.name, body, content_type)

    def predict_later(self, receipt: Receipt, body: bytes, content_type: str, timeout_s: float) -> Answer:
        """By InvokeEndpointAsync and S3; DeadlineExceeded, WrongUsage, NotDeployed, TargetUnavailable."""
        aws = self.aws_of(receipt)
        later = invocation.invoke_async(aws, receipt.name, body, content_type)
        return invocation.answer_of(aws, later, self.patience, timeout_s)

    def job_options(self) -> Sequence[tuple[str, str, str]]:
        """Those of the job, then those of the model and its instances."""
        return [*described(TransformOptions), *described(SageMakerOptions)]

    def run(
        self,
        model: ModelSpec,
        source: str,
        output: str,
        options: Mapping[str, object],
        *,
        name: str,
        restart: bool,
        tell: Callable[[PlanStep], None],
    ) -> Done:
        """A batch transform job; see `transform`."""
        return transform(self, model, source, output, *split(options), name=name, restart=restart, tell=tell)

    def found(self) -> Sequence[Receipt]:
        """Of every endpoint in the region that carries our tags."""
        return discovery.receipts(self._aws(self.at), self.uri)

    def stage(self) -> AbstractContextManager[Stage]:
        """The emulator, with real containers from a real registry."""
        return rehearse.stage(self.at)

    # --- AWS ---------------------------------------------------------------------------------------------------------

    def aws_of(self, receipt: Receipt) -> Aws:
        """AWS as it was asked for this deployment."""
        return self._aws(self._at(coerce(SageMakerOptions, receipt.options)))

    @cached_property
    def patience(self) -> Patience:
        """How this target waits."""
        return Patience(lambda line: self.progress(line))

    def _at(self, options: SageMakerOptions) -> SageMakerAddress:
        return self.at.with_options(options.region_name, options.assume_role_arn)

    def _aws(self, at: SageMakerAddress) -> Aws:
        return self._asked.setdefault(at, Aws(at))

    def _action(self, action: str) -> tuple[Any, Any]:
        if action not in ACTIONS:
            raise WrongUsage(f"the target sagemaker has no action {action!r}", remedy="plan it anew")
        return ACTIONS[action]


def _seen(aws: Aws, options: SageMakerOptions) -> list[Finding]:
    """What the options name and AWS does not have."""
    kinds = (
        ("image", options.image_url and inspection.image_problem(aws, options.image_url)),
        ("data", options.bucket and inspection.bucket_problem(aws, options.bucket)),
    )
    seen = [Finding(problem, KINDS[kind].remedy) for kind, problem in kinds if problem]
    missing = options.rollback_alarms and inspection.alarm_problem(aws, options.rollback_alarms)
    if missing:
        seen.append(Finding(missing, "-C rollback_alarms='[\"NAME\"]' of alarms in the endpoint's region"))
    return seen
