"""Maps failures of AWS and its Python library to kinds, each with an error class and a remedy.

Source: the error shapes in botocore's service models, AWS's "Common Errors", and the messages of SageMaker's
ValidationException, which is the code of most of its failures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from likewise.core.errors import BodyTooLarge, DeployFailed, LikewiseError, NotDeployed, TargetUnavailable, WrongUsage


@dataclass(frozen=True, slots=True)
class Kind:
    """A class of failures that share an error class and a remedy."""

    error: type[LikewiseError]
    remedy: str


KINDS = {
    "credentials": Kind(
        TargetUnavailable, "log in to AWS (aws sso login, or AWS_PROFILE) and check with: aws sts get-caller-identity"
    ),
    "expired": Kind(TargetUnavailable, "the credentials have expired: log in to AWS again, then run the same command"),
    "denied": Kind(TargetUnavailable, "allow this action in IAM, or use another role: -C assume_role_arn=ARN"),
    "role": Kind(DeployFailed, "set -C execution_role_arn=ARN to a role that sagemaker.amazonaws.com may assume"),
    "image": Kind(DeployFailed, "set -C image_url=REGISTRY/NAME:TAG to an image in ECR in the endpoint's region"),
    "data": Kind(DeployFailed, "set -C bucket=NAME to a bucket in the endpoint's region that the role can read"),
    "throttled": Kind(TargetUnavailable, "AWS limits the request rate: run the same command again in a minute"),
    "quota": Kind(
        TargetUnavailable, "request a higher quota in AWS Service Quotas, delete unused resources, or request fewer"
    ),
    "capacity": Kind(TargetUnavailable, "AWS has no capacity: use another instance_type or region, or try again later"),
    "unreachable": Kind(TargetUnavailable, "check the network, the region and the endpoint, then run it again"),
    "trouble": Kind(TargetUnavailable, "AWS reports an internal error: run the same command again"),
    "setup": Kind(TargetUnavailable, "fix the AWS settings on this machine (~/.aws/config, AWS_…)"),
    "missing": Kind(NotDeployed, "to show existing deployments, run: likewise list"),
    "taken": Kind(DeployFailed, "choose another name, or delete the resource that has it"),
    "busy": Kind(TargetUnavailable, "wait until AWS has finished the change, then run the same command again"),
    "size": Kind(BodyTooLarge, "send fewer rows per request, or an asynchronous request"),
    "health": Kind(
        DeployFailed, "read the log; if it only needs longer to start, set -C startup_timeout_s=SECONDS, up to 3600"
    ),
    "refused": Kind(DeployFailed, "correct the option that AWS names"),
    "usage": Kind(WrongUsage, "correct the options; if they look correct, please report a bug in Likewise"),
}

MESSAGES = (
    (r"could not assume role|role exists|cannot be assumed|invalid role", "role"),
    (r"image.*(not (be )?found|does not exist|no such|could not be (found|pulled))|CannotPullContainer", "image"),
    (r"(model data|model artifact|s3 object|bucket).*(not|region|access)|(access|find|locate) model data", "data"),
    (r"not authorized|access ?denied|does not have permission|permission to", "denied"),
    (r"InsufficientInstanceCapacity|insufficient capacity|unable to provision", "capacity"),
    (r"(account|service)[- ]level service limit|quota|limit exceeded", "quota"),
    (r"throttl|rate exceeded", "throttled"),
    (r"token.*expired|expired.*token", "expired"),
    (r"ping health check|health check|CannotStartContainer|exited|container.*(ready|start)", "health"),
    (r"request body.*too large|payload.*(too large|larger|exceed)|body size", "size"),
    (r"in-progress|in progress|is currently|cannot update .*status", "busy"),
    (r"could not find|does not exist|not found", "missing"),
    (r"already exist", "taken"),
)

_CODES = {
    "credentials": """
        InvalidClientTokenId InvalidToken UnrecognizedClientException MissingAuthenticationToken
        MissingAuthenticationTokenException InvalidAccessKeyId SignatureDoesNotMatch InvalidSignatureException
        IncompleteSignature IncompleteSignatureException AuthFailure OptInRequired NotSignedUp 401""",
    "expired": """
        ExpiredToken ExpiredTokenException RequestExpired TokenRefreshRequired RequestTimeTooSkewed""",
    "denied": """
        AccessDenied AccessDeniedException NotAuthorized UnauthorizedOperation AuthorizationError Forbidden 403
        AllAccessDisabled RegionDisabledException FailedResourceAccessException""",
    "throttled": """
        Throttling ThrottlingException ThrottledException RequestThrottled RequestThrottledException SlowDown
        TooManyRequestsException RequestLimitExceeded BandwidthLimitExceeded PriorRequestNotComplete
        TransactionInProgressException ProvisionedThroughputExceededException EC2ThrottledException 429""",
    "quota": """
        ResourceLimitExceeded LimitExceededException TooManyBuckets ServiceQuotaExceededException""",
    "trouble": """
        InternalFailure InternalError InternalServerError InternalServiceException InternalDependencyException
        ServiceUnavailable ServiceUnavailableException ServerException ServiceFailure RequestTimeout
        KmsException RequestTimeoutException ModelNotReadyException 500 502 503 504""",
    "missing": """
        ResourceNotFound ResourceNotFoundException ObjectNotFoundException RepositoryNotFoundException
        ImageNotFoundException NoSuchBucket NoSuchKey NoSuchUpload NoSuchEntity
        NoSuchEntityException 404""",
    "taken": """
        BucketAlreadyExists BucketAlreadyOwnedByYou RepositoryAlreadyExistsException""",
    "busy": """
        ResourceInUse ConflictException ConcurrentUpdateException RepositoryNotEmptyException BucketNotEmpty
        OperationAborted""",
    "data": """
        PermanentRedirect AuthorizationHeaderMalformed IllegalLocationConstraintException 301""",
    "size": """
        EntityTooLarge RequestEntityTooLarge PayloadTooLarge 413""",
    "refused": """
        ValidationError ValidationException InvalidParameterException InvalidParameterValue InvalidRequest
        InvalidTagParameterException TooManyTagsException EncryptionTypeMismatch InvalidObjectState TooManyParts
        InvalidWriteOffset InvalidNextToken InvalidNextTokenException MalformedPolicyDocument ModelError
        PackedPolicyTooLarge UnknownOperationException InvalidAction SerializationException BadRequest 400""",
}
CODES = {each: kind for kind, names in _CODES.items() for each in names.split()}

_EXCEPTIONS = {
    "credentials": """
        NoCredentialsError PartialCredentialsError CredentialRetrievalError NoAuthTokenError TokenRetrievalError
        SSOError LoginError MetadataRetrievalError RefreshWithMFAUnsupportedError UnknownCredentialError
        UnknownTokenProviderError""",
    "expired": """
        UnauthorizedSSOTokenError LoginRefreshRequired""",
    "unreachable": """
        ConnectionError HTTPClientError IncompleteReadError ChecksumError FlexibleChecksumError
        AwsChunkedWrapperError UnseekableStreamError S3TransferFailedError S3UploadFailedError
        RetriesExceededError""",
    "throttled": """
        CapacityNotAvailableError""",
    "setup": """
        ProfileNotFound ConfigNotFound ConfigParseError InvalidConfigError InvalidRegionError
        BaseEndpointResolverError EndpointProviderError DataNotFoundError ApiVersionNotFoundError
        InvalidDefaultsMode InvalidEndpointConfigurationError InvalidEndpointDiscoveryConfigurationError
        InvalidIMDSEndpointError InvalidIMDSEndpointModeError InvalidProxiesConfigError
        InvalidRetryConfigurationError InvalidS3AddressingStyleError InvalidChecksumConfigError
        InvalidS3UsEast1RegionalEndpointConfigError InvalidSTSRegionalEndpointsConfigError
        MissingDependencyException MD5UnavailableError ServiceNotInRegionError UnknownRegionError
        UnknownServiceStyle UnknownSignatureVersionError UnsupportedSignatureVersionError
        UnsupportedServiceProtocolsError UnsupportedS3ConfigurationError UnsupportedS3ControlConfigurationError
        InvalidCrtTransferConfigError UnknownAPIVersionError NoVersionFound""",
    "usage": """
        ParamValidationError ValidationError InvalidDNSNameError InvalidExpressionError InvalidHostLabelError
        MissingParametersError OperationNotPageableError PaginationError StubResponseError
        UndefinedModelAttributeError UnknownClientMethodError UnsupportedOutpostResourceError
        UnsupportedS3AccesspointConfigurationError UnsupportedS3ArnError UnsupportedS3ControlArnError
        WaiterConfigError WaiterError DynamoDBNeedsConditionError DynamoDBNeedsKeyConditionError
        DynamoDBOperationNotSupportedError ResourceLoadException ResourceNotExistsError""",
}
EXCEPTIONS = {each: kind for kind, names in _EXCEPTIONS.items() for each in names.split()}


def kind_of_message(text: str) -> str | None:
    """The kind of a failure by AWS's message, None if no pattern of MESSAGES matches."""
    return next((kind for pattern, kind in MESSAGES if re.search(pattern, text, re.IGNORECASE | re.DOTALL)), None)


def kind_of(error: BaseException) -> str | None:
    """The kind of an exception of boto3 or botocore, None if it is unknown."""
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        return _kind_of_response(response)
    if type(error).__name__.startswith("S3") and (cause := error.__context__) is not None:
        return kind_of(cause) or "unreachable"  # boto3's transfer wraps the service's error
    return next((EXCEPTIONS[each.__name__] for each in type(error).__mro__ if each.__name__ in EXCEPTIONS), None)


def _kind_of_response(response: dict[str, Any]) -> str | None:
    code, message = str(response["Error"].get("Code", "")), str(response["Error"].get("Message", ""))
    kind = CODES.get(code)
    if kind in (None, "refused"):
        kind = kind_of_message(message) or kind
    if kind is None:
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        kind = "refused" if 400 <= status < 500 else "trouble" if status >= 500 else None
    return kind


def error_for(kind: str | None, cause: str) -> LikewiseError:
    """The LikewiseError for a failure; kind: a key of KINDS, None if it is unknown."""
    known = KINDS[kind or "setup"]
    remedy = known.remedy if kind else "read AWS's message; if the problem may be temporary, run the same command again"
    return known.error(cause, remedy=remedy)
