"""Endpoints of the emulated SageMaker: lifecycle, failures, and a request by the AWS CLI."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.support.aws.account import ENVIRONMENT, Account
from tests.support.aws.api import INSTANCE, LIVE, Api, refused
from tests.support.aws.images import EMPTY, Images, containers
from tests.support.aws.processes import ProcessRunner
from tests.support.machine import cannot_test
from tests.support.processes import run
from tests.support.waiting import until

from likewise.bundles.archive import pack
from likewise.bundles.open import Bundle
from likewise.targets.sagemaker.emulator import Emulator, rehearsal

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sagemaker")]
pytest_plugins = ("tests.support.aws.fixtures",)


@contextmanager
def separate_emulator(runner: Any, **timeouts: float) -> Iterator[Api]:
    """A separate emulator. timeouts: its arguments max_startup_s and response_timeout_s."""
    with rehearsal(Emulator(runner, **timeouts)) as emulator:  # type: ignore[arg-type]
        yield Api(Account(emulator, "us-east-1"))


def test_a_request_is_passed_to_the_container(api: Api) -> None:
    response = api.invoke(LIVE, CustomAttributes="trace=7", InferenceId="abc", Accept="application/json")
    assert response["Body"] == b'{"predictions":["1:A"]}'
    assert response["CustomAttributes"] == "trace=7"
    assert response["InvokedProductionVariant"] == "AllTraffic"
    assert response["ContentType"] == "application/json"


def test_a_container_error_becomes_a_model_error_with_the_original_message(api: Api) -> None:
    with pytest.raises(ClientError) as failed:
        api.invoke(LIVE, ContentType="application/x-recordio-protobuf")
    response = failed.value.response
    assert response["Error"]["Code"] == "ModelError"
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["OriginalStatusCode"] == 415
    assert json.loads(response["OriginalMessage"])["remedy"]
    assert "client error (415)" in response["Message"]


def test_requests_over_6_mb_are_rejected(api: Api) -> None:
    most = 6 * 1024 * 1024
    api.invoke(LIVE, b'{"inputs": ["' + b"a" * (most - 16) + b'"]}')
    with refused("ValidationError"):
        api.invoke(LIVE, b"a" * (most + 1))


def test_a_missing_endpoint_is_reported(api: Api) -> None:
    with refused("ValidationError.*nowhere of account .* not found"):
        api.invoke("nowhere")
    with refused('ValidationException.*Could not find endpoint "arn:aws:sagemaker:us-east-1:.*endpoint/nowhere"'):
        api.described("nowhere")


def test_a_slow_response_times_out() -> None:
    with separate_emulator(Images({}), response_timeout_s=0.5) as api:
        api.model("slow", "one:1", Environment={"HOW": "never responds"})
        api.config("slow")
        assert api.endpoint("slow")["EndpointStatus"] == "InService"
        with pytest.raises(ClientError) as failed:
            api.invoke("slow")
        assert failed.value.response["OriginalStatusCode"] == 0
        assert "timed out" in failed.value.response["OriginalMessage"]


def test_an_update_switches_at_once_and_the_old_version_serves_until_then(api: Api) -> None:
    api.model("first")
    api.model("second", "upper:2")
    api.config("changing", "first")
    api.config("changed", "second")
    api.endpoint("changing")
    over, errors, seen = threading.Event(), [], set()

    def load() -> None:
        while not over.is_set():
            try:
                seen.add(api.invoke("changing")["Body"])
            except ClientError as error:
                errors.append(error)

    loading = threading.Thread(target=load)
    loading.start()
    policy = {
        "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}}
    }
    api.client("sagemaker").update_endpoint(
        EndpointName="changing", EndpointConfigName="changed", DeploymentConfig=policy
    )
    assert api.described("changing")["EndpointStatus"] == "Updating"
    with refused("Cannot update in-progress endpoint"):
        api.client("sagemaker").delete_endpoint(EndpointName="changing")
    description = api.settled("changing")
    over.set()
    loading.join()
    assert (description["EndpointConfigName"], description["LastDeploymentConfig"]) == ("changed", policy)
    assert api.invoke("changing")["Body"] == b'{"predictions":["2:A"]}'
    assert errors == []
    assert seen >= {b'{"predictions":["1:A"]}'}
    api.delete("changing")


def two_variants(api: Api, name: str, weights: dict[str, float]) -> None:
    """An endpoint with the variants `one` and `two`, of the images of these names."""
    variants = [
        {"VariantName": image, "ModelName": f"{name}-{image}", "InitialVariantWeight": weight, **INSTANCE}
        for image, weight in weights.items()
    ]
    for image in weights:
        api.model(f"{name}-{image}", f"{image}:1")
    api.client("sagemaker").create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants)
    assert api.endpoint(name)["EndpointStatus"] == "InService"


def shares(api: Api, name: str, requests: int = 200) -> dict[str, float]:
    """The part of the responses that came from each variant, whose name is checked against the container's."""
    responses = [api.invoke(name) for _ in range(requests)]
    served = Counter(response["InvokedProductionVariant"] for response in responses)
    assert all(json.loads(each["Body"])[0] == f"/{each['InvokedProductionVariant']}:1" for each in responses)
    return {variant: count / requests for variant, count in served.items()}


def test_variants_get_their_share_of_the_requests_and_it_can_be_changed(api: Api) -> None:
    two_variants(api, "shared", {"one": 3, "two": 1})
    assert shares(api, "shared")["one"] == pytest.approx(0.75, abs=0.18)  # six standard deviations
    sagemaker = api.client("sagemaker")
    changes = [
        {"VariantName": "one", "DesiredWeight": 0},
        {"VariantName": "two", "DesiredWeight": 2, "DesiredInstanceCount": 3},
    ]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName="shared", DesiredWeightsAndCapacities=changes)
    one, two = api.settled("shared")["ProductionVariants"]
    assert (one["CurrentWeight"], two["CurrentWeight"], two["CurrentInstanceCount"]) == (0, 2, 3)
    assert shares(api, "shared", 20) == {"two": 1}
    back = [{"VariantName": "one", "DesiredWeight": 0.5}]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName="shared", DesiredWeightsAndCapacities=back)
    api.settled("shared")
    assert shares(api, "shared")["one"] == pytest.approx(0.2, abs=0.17)
    with refused("Could not find variants \\['three'\\]"):
        sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="shared", DesiredWeightsAndCapacities=[{"VariantName": "three", "DesiredWeight": 1}]
        )
    sagemaker.update_endpoint(
        EndpointName="shared",
        EndpointConfigName="shared",
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredInstanceCount"}],
    )
    one, two = api.settled("shared")["ProductionVariants"]
    assert (one["CurrentWeight"], two["CurrentWeight"], two["CurrentInstanceCount"]) == (0.5, 2, 1)
    api.delete("shared")


def test_a_shadow_variant_gets_copies_and_its_responses_are_not_returned(api: Api) -> None:
    api.model("lit", "one:1")
    api.model("shady", "two:1", Environment={"HOW": "never responds"})
    shadow = {"VariantName": "copy", "ModelName": "shady", "InitialVariantWeight": 1.0, **INSTANCE}
    api.config("lit", ShadowProductionVariants=[shadow])
    assert [each["VariantName"] for each in api.endpoint("lit")["ShadowProductionVariants"]] == ["copy"]
    for number in range(3):
        response = api.invoke("lit", str(number).encode())
        assert (json.loads(response["Body"]), response["InvokedProductionVariant"]) == (
            ["/one:1", str(number)],
            "AllTraffic",
        )
    until(lambda: {f"received {number}" for number in range(3)} <= set(api.log("lit", "copy")))
    with refused("Variant copy was not found"):
        api.invoke("lit", TargetVariant="copy")
    stop = [{"VariantName": "copy", "DesiredWeight": 0}]
    api.client("sagemaker").update_endpoint_weights_and_capacities(EndpointName="lit", DesiredWeightsAndCapacities=stop)
    assert api.settled("lit")["ShadowProductionVariants"][0]["CurrentWeight"] == 0
    api.invoke("lit", b"last")
    assert "received last" not in api.log("lit", "copy")
    api.delete("lit")
    with refused("exactly one production variant"):
        api.config("dim", "lit", ShadowProductionVariants=[shadow, {**shadow, "VariantName": "other"}])


def test_an_update_requires_the_current_configuration(api: Api) -> None:
    sagemaker = api.client("sagemaker")
    config = sagemaker.describe_endpoint_config(EndpointConfigName=LIVE)
    api.config("newer", LIVE)
    sagemaker.delete_endpoint_config(EndpointConfigName=LIVE)
    with refused(f"Could not find endpoint configuration .*{LIVE}"):
        sagemaker.update_endpoint(EndpointName=LIVE, EndpointConfigName="newer")
    sagemaker.create_endpoint_config(EndpointConfigName=LIVE, ProductionVariants=config["ProductionVariants"])


def test_a_failed_update_keeps_the_old_version_in_service(api: Api) -> None:
    api.model("worse", "missing:1")
    api.config("worse")
    api.client("sagemaker").update_endpoint(EndpointName=LIVE, EndpointConfigName="worse")
    description = api.settled(LIVE)
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", LIVE)
    assert "missing:1" in description["FailureReason"]
    assert api.invoke(LIVE)["Body"] == b'{"predictions":["1:A"]}'


def test_a_deleted_endpoint_leaves_no_process_and_its_log_remains(api: Api) -> None:
    api.model("short")
    api.config("short")
    api.endpoint("short")
    until(lambda: any("ready at" in line for line in api.log("short")))  # logged shortly after it is ready
    before = containers()
    api.delete("short")
    assert containers() == before - 1
    sagemaker = api.client("sagemaker")
    sagemaker.delete_endpoint_config(EndpointConfigName="short")
    sagemaker.delete_model(ModelName="short")
    with refused("Could not find model"):
        sagemaker.describe_model(ModelName="short")
    assert any("ready at" in line for line in api.log("short"))


def failing(api: Api, name: str, **container: Any) -> str:
    """The FailureReason of an endpoint with this container, which must fail."""
    api.model(name, **container)
    api.config(name)
    before = containers()
    response = api.endpoint(name)
    assert response["EndpointStatus"] == "Failed"
    assert containers() == before
    with refused("is Failed"):
        api.invoke(name)
    api.delete(name)
    return str(response["FailureReason"])


def test_a_missing_image_is_reported(api: Api) -> None:
    assert "The image missing:1" in failing(api, "no-image", image="missing:1")


def test_the_failure_reason_contains_the_log_of_a_container_that_exits(api: Api) -> None:
    reason = failing(api, "ends", Environment={"LIKEWISE_DEADLINE_S": "soon"})
    assert "production variant AllTraffic did not pass the ping health check" in reason
    assert "exited with code 2" in reason
    assert "LIKEWISE_DEADLINE_S" in reason
    assert any("WRONG_USAGE" in line for line in api.log("ends"))


def test_a_container_that_never_responds_to_pings_fails_the_endpoint() -> None:
    silent = (sys.executable, "-c", "import time; print('here I am', flush=True); time.sleep(600)")
    with separate_emulator(ProcessRunner({"silent:1": {}}, silent), max_startup_s=1) as api:
        api.model("silent", "silent:1")
        api.config("silent")
        response = api.endpoint("silent")
        assert response["EndpointStatus"] == "Failed"
        assert "did not pass the ping health check" in response["FailureReason"]
        assert api.log("silent") == ["here I am"]


def test_a_role_must_exist_and_trust_sagemaker(api: Api) -> None:
    sagemaker = api.client("sagemaker")
    other = api.account.make_role("lambda", "lambda.amazonaws.com")
    for role in (api.role.replace("serving", "nobody"), other):
        with refused("ValidationException.*Could not assume role"):
            sagemaker.create_model(ModelName="x", ExecutionRoleArn=role, PrimaryContainer={"Image": "upper:1"})


def test_a_role_deleted_before_the_endpoint_is_created_fails_the_endpoint(api: Api) -> None:
    original, api.role = api.role, api.account.make_role("passing")
    api.model("passing")
    api.role = original
    api.client("iam").delete_role(RoleName="passing")
    api.config("passing")
    description = api.endpoint("passing")
    assert (description["EndpointStatus"], "Could not assume role" in description["FailureReason"]) == ("Failed", True)
    api.delete("passing")


def test_model_data_must_exist_in_the_endpoints_region(api: Api) -> None:
    with refused("Could not access model data at s3://rows/none.tar.gz"):
        api.model("x", EMPTY, ModelDataUrl="s3://rows/none.tar.gz")
    west = {"LocationConstraint": "us-west-1"}
    api.client("s3").create_bucket(Bucket="far-away", CreateBucketConfiguration=west)
    api.client("s3").put_object(Bucket="far-away", Key="m.tar.gz", Body=b"")
    with refused("located in us-east-1"):
        api.model("x", EMPTY, ModelDataUrl="s3://far-away/m.tar.gz")


def test_invalid_model_data_fails_the_endpoint(api: Api) -> None:
    url = api.put("broken.tar.gz", b"no archive")
    assert "Failed to download model data" in failing(api, "broken", image=EMPTY, ModelDataUrl=url)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
    url = api.put("climbs.tar.gz", stream.getvalue())
    assert "Failed to download model data" in failing(api, "climbs", image=EMPTY, ModelDataUrl=url)


def test_a_bundle_can_be_model_data(api: Api, upper_bundles: dict[str, Bundle], tmp_path: Path) -> None:
    url = api.put("model.tar.gz", pack(upper_bundles["2"], tmp_path / "model.tar.gz").read_bytes())
    api.model("packed", EMPTY, ModelDataUrl=url, Environment={"LIKEWISE_TRUST": "true"})
    api.config("packed")
    assert api.endpoint("packed")["EndpointStatus"] == "InService"
    assert api.invoke("packed")["Body"] == b'{"predictions":["2:A"]}'
    api.delete("packed")


def test_model_data_that_the_sdk_and_macos_packed_again_is_served(
    api: Api, upper_bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    path = pack(upper_bundles["2"], tmp_path / "model.tar.gz")
    folder = tmp_path / "again"
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    for name in ("code/inference.py", ".DS_Store", "model/._MLmodel"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"added")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, ".")
    url = api.put("again.tar.gz", path.read_bytes())
    environment = {"LIKEWISE_TRUST": "true", "LIKEWISE_CACHE_HOME": str(tmp_path / "cache")}
    api.model("again", EMPTY, ModelDataUrl=url, Environment=environment)
    api.config("again")
    described = api.endpoint("again")
    assert described["EndpointStatus"] == "InService", described.get("FailureReason")
    assert api.invoke("again")["Body"] == b'{"predictions":["2:A"]}'
    assert any(line.endswith("not part of it: .DS_Store, code, model/._MLmodel") for line in api.log("again"))
    api.delete("again")


def aws_cli() -> str:
    """The path of the AWS CLI, from LIKEWISE_TEST_AWS or PATH; without it the test is skipped."""
    path = os.environ.get("LIKEWISE_TEST_AWS") or shutil.which("aws")
    if path is None:
        cannot_test("sagemaker", "the AWS CLI is not installed (python3 -m venv DIR && DIR/bin/pip install awscli)")
    return path


def test_the_aws_cli_can_invoke_an_endpoint(api: Api, tmp_path: Path) -> None:
    body = '{"columns":["text"], "data": [["This is the best movie we saw."], ["What a movie!"]]}'
    command = [aws_cli(), "sagemaker-runtime", "invoke-endpoint", "--endpoint-name", LIVE]
    command += ["--content-type", "application/json; format=pandas-split", "--body", body, "response.json"]
    command += ["--endpoint-url", api.emulator.url]
    environment = {**os.environ, **ENVIRONMENT, "AWS_DEFAULT_REGION": api.account.region}
    done = run(command, cwd=tmp_path, env=environment)
    assert json.loads(done.stdout)["InvokedProductionVariant"] == "AllTraffic"
    response = json.loads((tmp_path / "response.json").read_text())
    assert response == ["1:THIS IS THE BEST MOVIE WE SAW.", "1:WHAT A MOVIE!"]
