"""The target `sagemaker`: an endpoint of Amazon SageMaker, its configuration and its model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, ClassVar

from likewise.core.errors import WrongUsage
from likewise.core.option_fields import coerce, described
from likewise.core.spec import ModelSpec
from likewise.targets.base import (
    Finding,
    JobResult,
    JsonValue,
    Outputs,
    PlanStep,
    Receipt,
    Response,
    Stage,
    Status,
    Traffic,
    Verb,
)
from likewise.targets.sagemaker import discovery, figures, inspection, invocation, logs, plan, rehearse
from likewise.targets.sagemaker.actions import ACTIONS
from likewise.targets.sagemaker.address import SageMakerAddress
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.failures import KINDS
from likewise.targets.sagemaker.names import check_name
from likewise.targets.sagemaker.polling import Poller
from likewise.targets.sagemaker.requirements import check_requests
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions
from likewise.targets.sagemaker.transform import transform
from likewise.targets.sagemaker.transform_options import TransformOptions, split


class SageMakerTarget:
    """SageMaker in the region of the URI, or in the region of AWS's own settings.

    progress: called with a line when the state of a pending operation changes.
    """

    Options: ClassVar[type[SageMakerOptions]] = SageMakerOptions

    def __init__(self, uri: str) -> None:
        self.at = SageMakerAddress.of(uri)
        self.uri = self.at.uri
        self.progress: Callable[[str], None] = lambda _: None
        self._accounts: dict[SageMakerAddress, Aws] = {}

    # --- plans -------------------------------------------------------------------------------------------------------

    def check(self, model: ModelSpec, options: SageMakerOptions, current: Receipt | None = None) -> Sequence[Finding]:  # noqa: ARG002
        """Validate every request against AWS's model of it, then check that the resources in the options exist.

        Raises WrongUsage for an option that AWS would reject, TargetUnavailable without valid credentials.
        """
        at = self._at(options)
        check_requests(model, options)
        aws = self._aws(at)
        inspection.account(aws)
        return _missing_resources(aws, options)

    def plan(
        self, verb: Verb, name: str, model: ModelSpec | None, options: SageMakerOptions, current: Receipt | None
    ) -> Sequence[PlanStep]:
        """The steps of the plan.  Raises AlreadyDeployed, NotDeployed, WrongUsage, DeployFailed, TargetUnavailable."""
        check_name(name)
        at = self._at(options)
        aws = self._aws(at)
        if verb == "delete":
            return plan.delete_steps(aws, at, name, options, current)
        assert model is not None  # noqa: S101  only a deletion has no model
        spec = plan.EndpointSpec(at, name, model, options)
        return plan.create_steps(aws, spec) if verb == "create" else plan.update_steps(aws, spec)

    def do(self, action: str, params: Mapping[str, JsonValue]) -> Outputs:
        """Execute one step; see `actions`."""
        do, _ = self._action(action)
        return do(self._aws(SageMakerAddress(**params["at"])), self.poller, params) or {}

    def undo(self, action: str, params: Mapping[str, JsonValue]) -> None:
        """Undo one step: remove what it created; resources that existed before remain."""
        _, undo = self._action(action)
        undo(self._aws(SageMakerAddress(**params["at"])), self.poller, params)

    # --- deployments -------------------------------------------------------------------------------------------------

    def status(self, receipt: Receipt) -> Status:
        """The deployment's status, as SageMaker reports it."""
        return discovery.status_of(self.aws_of(receipt), receipt.name)

    def traffic(self, receipt: Receipt) -> Traffic:
        """The figures of today in CloudWatch.  Raises NotDeployed, TargetUnavailable."""
        return figures.traffic_of(self.aws_of(receipt), receipt.name)

    def logs(self, receipt: Receipt, lines: int, follow: bool) -> Iterator[str]:
        """The log lines in CloudWatch, which keeps them for all versions."""
        return logs.log_lines(self.aws_of(receipt), receipt.name, lines, follow, self.poller.sleep)

    def predict(self, receipt: Receipt, body: bytes, content_type: str) -> Response:
        """The container's response, by InvokeEndpoint; NotDeployed, TargetUnavailable, BodyTooLarge, WrongUsage."""
        return invocation.invoke(self.aws_of(receipt), receipt.name, body, content_type)

    def predict_later(self, receipt: Receipt, body: bytes, content_type: str, timeout_s: float) -> Response:
        """Invoke by InvokeEndpointAsync and wait for the response in S3.

        Raises DeadlineExceeded, WrongUsage, NotDeployed, TargetUnavailable.
        """
        aws = self.aws_of(receipt)
        pending = invocation.invoke_async(aws, receipt.name, body, content_type)
        return invocation.wait_for_response(aws, pending, self.poller, timeout_s)

    def job_options(self) -> Sequence[tuple[str, str, str]]:
        """Name, default and help of each option: those of the job, then those of the model and its instances."""
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
        on_step: Callable[[PlanStep], None],
    ) -> JobResult:
        """Run a batch transform job; see `transform.transform`."""
        return transform(self, model, source, output, *split(options), name=name, restart=restart, on_step=on_step)

    def found(self) -> Sequence[Receipt]:
        """A receipt for every endpoint in the region that has Likewise's tags."""
        return discovery.receipts(self._aws(self.at), self.uri)

    def stage(self) -> AbstractContextManager[Stage]:
        """Start the emulator, with real containers from a real registry."""
        return rehearse.stage(self.at)

    # --- AWS ---------------------------------------------------------------------------------------------------------

    def aws_of(self, receipt: Receipt) -> Aws:
        """AWS with the region and role of this deployment."""
        return self._aws(self._at(coerce(SageMakerOptions, receipt.options)))

    @cached_property
    def poller(self) -> Poller:
        """Polls AWS, and reports to `progress`."""
        return Poller(lambda line: self.progress(line))

    def _at(self, options: SageMakerOptions) -> SageMakerAddress:
        return self.at.with_options(options.region_name, options.assume_role_arn)

    def _aws(self, at: SageMakerAddress) -> Aws:
        return self._accounts.setdefault(at, Aws(at))

    def _action(self, action: str) -> tuple[Any, Any]:
        if action not in ACTIONS:
            raise WrongUsage(f"the target sagemaker has no action {action!r}", remedy="create a new plan")
        return ACTIONS[action]


def _missing_resources(aws: Aws, options: SageMakerOptions) -> list[Finding]:
    """A finding for each resource in the options that does not exist or cannot be used."""
    kinds = (
        ("image", options.image_url and inspection.image_problem(aws, options.image_url)),
        ("data", options.bucket and inspection.bucket_problem(aws, options.bucket)),
    )
    findings = [Finding(problem, KINDS[kind].remedy) for kind, problem in kinds if problem]
    missing = options.rollback_alarms and inspection.alarm_problem(aws, options.rollback_alarms)
    if missing:
        findings.append(Finding(missing, "set -C rollback_alarms='[\"NAME\"]' to alarms in the endpoint's region"))
    return findings
