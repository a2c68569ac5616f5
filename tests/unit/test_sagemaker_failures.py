"""Every exception of AWS's library and every error code of its services has a kind, and no error contains a secret."""

from __future__ import annotations

import inspect

import boto3.exceptions
import botocore.exceptions
import botocore.session
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from likewise.core.errors import DeployFailed, LikewiseError, TargetUnavailable
from likewise.targets.sagemaker.address import SageMakerAddress
from likewise.targets.sagemaker.aws import Aws, _library_exceptions
from likewise.targets.sagemaker.failures import CODES, EXCEPTIONS, KINDS, error_for, kind_of, kind_of_message

OPERATIONS = {
    "sagemaker": """CreateModel DescribeModel DeleteModel ListModels CreateEndpointConfig DescribeEndpointConfig
        DeleteEndpointConfig ListEndpointConfigs CreateEndpoint UpdateEndpoint DescribeEndpoint DeleteEndpoint
        ListEndpoints AddTags ListTags CreateTransformJob DescribeTransformJob StopTransformJob""",
    "sagemaker-runtime": "InvokeEndpoint InvokeEndpointAsync",
    "application-autoscaling": """RegisterScalableTarget DeregisterScalableTarget DescribeScalableTargets
        PutScalingPolicy DescribeScalingPolicies""",
    "ecr": """DescribeRepositories CreateRepository DeleteRepository DescribeImages BatchDeleteImage
        GetAuthorizationToken""",
    "s3": """HeadBucket CreateBucket DeleteBucket PutPublicAccessBlock HeadObject PutObject GetObject DeleteObject
        CreateMultipartUpload UploadPart CompleteMultipartUpload AbortMultipartUpload""",
    "sts": "AssumeRole GetCallerIdentity",
    "iam": "GetRole",
    "logs": "DescribeLogStreams GetLogEvents",
    "cloudwatch": "DescribeAlarms GetMetricData",
}
LIBRARY = [
    each
    for module in (botocore.exceptions, boto3.exceptions)
    for _, each in inspect.getmembers(module, inspect.isclass)
    if issubclass(each, Exception) and not issubclass(each, Warning) and each.__module__ == module.__name__
]
ROOTS = {
    "BotoCoreError",
    "Boto3Error",
    "ClientError",
    "EventStreamError",
}  # the kind of a ClientError depends on its code


@pytest.mark.parametrize("kind", LIBRARY, ids=lambda kind: kind.__name__)
def test_every_exception_of_the_library_is_caught_and_has_a_kind(kind: type[Exception]) -> None:
    assert issubclass(kind, _library_exceptions())
    if kind.__name__ not in ROOTS:
        assert any(each.__name__ in EXCEPTIONS for each in kind.__mro__), kind


def test_every_error_code_of_the_operations_in_use_has_a_kind() -> None:
    session = botocore.session.get_session()
    for service, operations in OPERATIONS.items():
        model = session.get_service_model(service)
        for operation in operations.split():
            for shape in model.operation_model(operation).error_shapes:
                code = shape.metadata.get("error", {}).get("code", shape.name)
                assert code in CODES, f"{service} {operation} {code}"


def test_every_kind_has_a_remedy_and_every_mapping_a_kind() -> None:
    assert {*CODES.values(), *EXCEPTIONS.values()} <= set(KINDS)
    assert all(kind.remedy for kind in KINDS.values())


def refused(code: str, message: str, status: int = 400) -> ClientError:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "CreateModel")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (
            "ValidationException",
            "Could not assume role arn:aws:iam::1:role/x. Please ensure that the role exists",
            "role",
        ),
        ("ValidationException", "Could not find model data at s3://b/k.", "data"),
        ("ValidationException", "Requested image 1.dkr.ecr.eu-west-1.amazonaws.com/x:1 not found.", "image"),
        ("ValidationException", 'Could not find endpoint "arn:aws:sagemaker:eu-west-1:1:endpoint/x".', "missing"),
        ("ValidationException", 'Cannot create already existing model "arn".', "taken"),
        ("ValidationException", 'Cannot update in-progress endpoint "arn".', "busy"),
        ("ResourceLimitExceeded", "The account-level service limit is 0 Instances", "quota"),
        ("ThrottlingException", "Rate exceeded", "throttled"),
        ("ExpiredTokenException", "The security token included in the request is expired", "expired"),
        ("AccessDeniedException", "User: arn is not authorized to perform: sagemaker:CreateModel", "denied"),
        ("ValidationException", "1 validation error detected", "refused"),
        ("SomethingNew", "an unknown error", "refused"),
    ],
)
def test_errors_of_aws_get_the_expected_kind(code: str, message: str, kind: str) -> None:
    assert kind_of(refused(code, message)) == kind


def test_an_unknown_server_error_is_of_the_kind_trouble() -> None:
    assert kind_of(refused("SomethingNew", "x", 500)) == "trouble"


def test_an_unknown_exception_has_no_kind_but_becomes_a_likewise_error() -> None:
    assert kind_of(RuntimeError("x")) is None
    assert isinstance(error_for(None, "x"), LikewiseError)


@pytest.mark.parametrize(
    ("reason", "error", "remedy"),
    [
        ("The primary container for production variant A did not pass the ping health check.", DeployFailed, "startup"),
        (
            "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity",
            TargetUnavailable,
            "type",
        ),
        ("The image 'x' does not exist.", DeployFailed, "image_url"),
    ],
)
def test_the_reasons_of_a_failed_endpoint_have_remedies(reason: str, error: type[LikewiseError], remedy: str) -> None:
    raised = error_for(kind_of_message(reason), reason)
    assert isinstance(raised, error)
    assert remedy in raised.remedy


def test_errors_contain_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("ACCESS_KEY_ID", "AKIAAAAABBBBCCCCDDDD"),
        ("SECRET_ACCESS_KEY", "very/secret"),
        ("SESSION_TOKEN", "tok"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    aws = Aws(SageMakerAddress("eu-west-1", endpoint="http://127.0.0.1:9"))  # nothing listens there

    def broken(_: object) -> None:
        raise refused(
            "SignatureDoesNotMatch", "x-amz-security-token:tok very/secret AKIAAAAABBBBCCCCDDDD\nASIAXXXXYYYYZZZZ1111"
        )

    with pytest.raises(TargetUnavailable) as failed:
        aws.run("sagemaker", "create_model", broken)
    text = failed.value.cause + failed.value.remedy
    assert not any(secret in text for secret in ("very/secret", "AKIA", "ASIAX", "tok "))
    with pytest.raises(TargetUnavailable, match="connect"):
        aws.call("sagemaker", "list_models")


def test_a_connection_error_is_of_the_kind_unreachable() -> None:
    assert kind_of(EndpointConnectionError(endpoint_url="http://x")) == "unreachable"
