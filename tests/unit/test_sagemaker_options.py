"""URIs, names and options of the target `sagemaker`, and the requests that are built from them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likewise.core.errors import WrongUsage
from likewise.core.option_fields import as_json, coerce, described
from likewise.core.spec import ModelSpec
from likewise.targets.sagemaker import requests
from likewise.targets.sagemaker.address import SageMakerAddress
from likewise.targets.sagemaker.names import LONGEST, check_name, derived, is_derived, tags_of
from likewise.targets.sagemaker.patterns import compiled
from likewise.targets.sagemaker.request_validation import check, option_of
from likewise.targets.sagemaker.requirements import check_requests
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions
from likewise.targets.sagemaker.transform_options import TransformOptions, split, with_header

MODEL = ModelSpec("sha256:" + "a" * 64, Path("/b"), "models:/m/1")
ROLE = "arn:aws:iam::123456789012:role/serving"
MLFLOW = """
    execution_role_arn assume_role_arn bucket image_url region_name instance_type instance_count vpc_config
    data_capture_config variant_name env tags async_inference_config serverless_config mode archive synchronous
    timeout_seconds
"""
OPERATIONS = [
    ("sagemaker", "CreateModel"),
    ("sagemaker", "CreateEndpointConfig"),
    ("sagemaker", "CreateEndpoint"),
    ("sagemaker", "UpdateEndpoint"),
    ("sagemaker", "CreateTransformJob"),
    ("sagemaker-runtime", "InvokeEndpoint"),
    ("sagemaker-runtime", "InvokeEndpointAsync"),
    ("application-autoscaling", "RegisterScalableTarget"),
    ("application-autoscaling", "PutScalingPolicy"),
]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


def options(**given: object) -> SageMakerOptions:
    return coerce(SageMakerOptions, given)


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("sagemaker", SageMakerAddress(None)),
        ("sagemaker:/", SageMakerAddress(None)),
        ("sagemaker:/eu-west-1", SageMakerAddress("eu-west-1")),
        ("sagemaker/eu-west-1", SageMakerAddress("eu-west-1")),  # the rest of likewise:/sagemaker/eu-west-1
        ("sagemaker:/us-gov-west-1/", SageMakerAddress("us-gov-west-1")),
        (f"sagemaker:/eu-west-1/{ROLE}", SageMakerAddress("eu-west-1", ROLE)),
        (f"sagemaker:/eu-west-1///{ROLE}", SageMakerAddress("eu-west-1", ROLE)),
        (f"sagemaker/eu-west-1/{ROLE}", SageMakerAddress("eu-west-1", ROLE)),
        ("sagemaker:/?endpoint_url=http://127.0.0.1:5", SageMakerAddress("us-east-1", None, "http://127.0.0.1:5")),
    ],
)
def test_uris_in_mlflows_form_are_parsed_and_canonical(uri: str, wanted: SageMakerAddress) -> None:
    assert SageMakerAddress.of(uri) == wanted
    assert SageMakerAddress.of(wanted.uri) == wanted


@pytest.mark.parametrize(
    "uri",
    [
        f"sagemaker:/{ROLE}",
        "sagemakers",
        "sagemaker:eu-west-1",
        "sagemaker:/Europe",
        "sagemaker:/eu-west-1/role",
        "sagemaker:/eu-west-1?region=x",
        "sagemaker:/eu-west-1;rm -rf",
        "sagemaker:/eu-west-1?endpoint_url=http://me:secret@host",
    ],
)
def test_invalid_uris_are_rejected_without_showing_secrets(uri: str) -> None:
    with pytest.raises(WrongUsage) as refused:
        SageMakerAddress.of(uri)
    assert "secret" not in refused.value.cause + refused.value.remedy


def test_region_and_endpoint_default_to_awss_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert SageMakerAddress.of("sagemaker").uri == "sagemaker:/eu-north-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:5000")
    at = SageMakerAddress.of("sagemaker")
    assert (at.region, at.endpoint, at.rehearsal) == ("eu-west-3", "http://127.0.0.1:5000", True)
    assert SageMakerAddress.of(at.uri) == at


def test_a_missing_region_is_reported_when_it_is_needed() -> None:
    with pytest.raises(WrongUsage, match="region"):
        _ = SageMakerAddress.of("sagemaker").named_region


# --- names and tags --------------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", fullmatch=True).filter(lambda text: len(text) <= LONGEST)


@settings(deadline=None)
@given(NAMES, st.text(), st.text())
def test_derived_names_are_valid_and_differ_for_different_values(name: str, one: str, two: str) -> None:
    check_name(name)
    result = derived(name, one)
    check_name(result)
    assert is_derived(name, result)
    assert (derived(name, two) == result) == (one == two)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a_b", "a.b", "a" * 64, "a;b", "$(id)", "a b", "é"])
def test_invalid_endpoint_names_are_rejected(name: str) -> None:
    with pytest.raises(WrongUsage):
        check_name(name)


@settings(deadline=None)
@given(st.text(max_size=400), st.sampled_from([None, "torch"]))
def test_tags_are_always_valid_for_aws(source: str, engine: str | None) -> None:
    tags = tags_of("name", ModelSpec(MODEL.digest, MODEL.folder, source, engine), {"team": "a b"})
    check("sagemaker", "CreateEndpoint", requests.create_request("name", "config", tags), {})


# --- options ---------------------------------------------------------------------------------------------------------


def test_all_options_of_mlflow_exist_and_have_help_texts() -> None:
    known = {name: text for name, _, text in described(SageMakerOptions)}
    assert set(MLFLOW.split()) <= set(known)
    assert all(known.values())


def test_options_survive_json() -> None:
    given_ = options(tags='{"a": "b"}', instance_count="2", rollback_alarms='["x"]', archive="true")
    assert coerce(SageMakerOptions, json.loads(json.dumps(as_json(given_)))) == given_


@pytest.mark.parametrize(
    ("given_", "problem", "remedy"),
    [
        ({"instance_type": "ml.m5.xlrage"}, "instance_type", "ml.m5.xlarge"),
        ({"inference_ami_version": "al2-ami-sagemaker-inference-gpu-9"}, "inference_ami_version", "al2-ami"),
        ({"routing_strategy": "RANDON"}, "routing_strategy", "RANDOM"),
        ({"startup_timeout_s": "59"}, "startup_timeout_s", "create-endpoint-config"),
        ({"startup_timeout_s": "3601"}, "startup_timeout_s", "3600"),
        ({"volume_size_gb": "513"}, "volume_size_gb", "512"),
        ({"instance_count": "0"}, "instance_count", ""),
        ({"variant_name": "a b"}, "variant_name", ""),
        ({"execution_role_arn": "arn:aws:iam::12:role/x"}, "execution_role_arn", ""),
        ({"execution_role_arn": ROLE + "; rm -rf /"}, "execution_role_arn", ""),
        ({"image_url": "an image"}, "image_url", ""),
        ({"vpc_config": '{"Subnets": ["subnet-1"]}'}, "vpc_config", ""),
        ({"vpc_config": '{"Subnets": ["$(id)"], "SecurityGroupIds": ["sg-1"]}'}, "vpc_config.Subnets", ""),
        ({"vpc_config": '{"Subnet": ["s"], "SecurityGroupIds": ["sg-1"], "Subnets": ["s"]}'}, "vpc_config", ""),
        ({"serverless_config": '{"MemorySizeInMB": 512, "MaxConcurrency": 5}'}, "serverless_config.MemorySizeInMB", ""),
        ({"serverless_config": '{"MemorySizeInMB": "1024", "MaxConcurrency": 5}'}, "serverless_config", ""),
        ({"async_inference_config": '{"OutputConfig": {"S3OutputPath": "/tmp"}}'}, "async_inference_config.Output", ""),
        ({"data_capture_config": '{"EnableCapture": true}'}, "data_capture_config", ""),
        ({"env": '{"not a name": "x"}'}, "env", ""),
        ({"tags": '{"a;b": "x"}'}, "tags", ""),
        ({"tags": '{"a": "`id`"}'}, "tags", ""),
        ({"deployment_config": '{"BlueGreen": {}}'}, "deployment_config", ""),
        ({"traffic": "canary", "termination_wait_s": "7200", "timeout_seconds": "90000"}, "termination_wait_s", "3600"),
        ({"update_timeout_s": "10"}, "update_timeout_s", ""),
        ({"max_instances": "4", "scaling_policy": '{"TargetValue": "x"}'}, "scaling_policy", ""),
    ],
)
def test_invalid_values_are_rejected_before_aws_is_called(given_: dict[str, str], problem: str, remedy: str) -> None:
    with pytest.raises(WrongUsage) as refused:
        check_requests(MODEL, options(**given_))
    assert problem in refused.value.cause
    assert remedy in refused.value.remedy
    assert refused.value.remedy


@pytest.mark.parametrize(
    "given_",
    [
        {"execution_role_arn": ROLE, "image_url": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/likewise:1"},
        {"serverless_config": '{"ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 20}}'},
        {"async_inference_config": '{"OutputConfig": {"S3OutputPath": "s3://bucket/out"}}'},
        {"async_inference_config": '{"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://bucket/out"}}}'},
        {"traffic": "canary", "rollback_alarms": '["errors"]', "traffic_wait_s": "600"},
        {"traffic": "linear", "traffic_percent": "25", "traffic_wait_s": "60", "termination_wait_s": "0"},
        {"traffic": "rolling", "traffic_percent": "50", "traffic_wait_s": "60"},
        {"max_instances": "4", "scale_in_cooldown_s": "600"},
        {"env": '{"A": "$(rm -rf /); `id` \\" && echo"}', "tags": '{"team": "a b"}'},  # never passed to a shell
        {"bundle_in": "s3", "image_url": "i:1", "bucket": "models"},
        {"network_isolation": "true", "volume_size_gb": "30", "model_download_timeout_s": "600"},
    ],
)
def test_valid_options_are_accepted(given_: dict[str, str]) -> None:
    check_requests(MODEL, options(**given_))


@pytest.mark.parametrize(
    "given_",
    [
        {"bundle_in": "s3"},
        {"bucket": "b", "image_url": "i"},
        {"traffic": "canary", "traffic_percent": "60"},
        {"traffic": "linear", "traffic_percent": "5"},
        {"traffic": "linear", "traffic_wait_s": "600"},  # longer than timeout_seconds
        {"traffic": "canary", "deployment_config": "{}"},
        {"max_instances": "2", "min_instances": "3"},
        {"max_instances": "2", "serverless_config": "{}"},
        {"max_instances": "2", "synchronous": "false"},
        {"timeout_seconds": "0"},
        {"repository": "Upper"},
        {"repository": "a;b"},
        {"mode": "append"},
        {"env": '{"A": 1}'},
        {"env": '{"LIKEWISE_CELL_LIMIT": "1000"}'},
        {"env": '{"LIKEWISE_WORKERS": "many"}'},
        {"tags": '{"A": null}'},
    ],
)
def test_contradictory_options_are_rejected(given_: dict[str, str]) -> None:
    with pytest.raises(WrongUsage):
        options(**given_)


def test_requests_contain_the_values_of_the_options() -> None:
    values = options(
        startup_timeout_s="600", volume_size_gb="30", instance_count="2", traffic="canary", rollback_alarms='["a"]'
    )
    (variant,) = requests.variants(values, "m", ())
    assert variant["ContainerStartupHealthCheckTimeoutInSeconds"] == 600
    assert (variant["VolumeSizeInGB"], variant["InitialInstanceCount"], variant["VariantName"]) == (30, 2, "AllTraffic")
    deployment = requests.deployment_config(values)
    assert deployment is not None
    routing = deployment["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert (routing["Type"], routing["CanarySize"]) == ("CANARY", {"Type": "CAPACITY_PERCENT", "Value": 10})
    assert deployment["AutoRollbackConfiguration"] == {"Alarms": [{"AlarmName": "a"}]}
    assert requests.deployment_config(options()) is None


def test_an_added_variant_has_no_traffic_and_a_replaced_one_keeps_its_weight() -> None:
    existing = [{"VariantName": "AllTraffic", "ModelName": "old", "InitialVariantWeight": 1.0}]
    added = requests.variants(options(mode="add", variant_name="next"), "new", existing)
    assert [(each["ModelName"], each["InitialVariantWeight"]) for each in added] == [("old", 1.0), ("new", 0.0)]
    again = requests.variants(options(mode="add", variant_name="next"), "newer", added)
    assert [(each["ModelName"], each["InitialVariantWeight"]) for each in again] == [("old", 1.0), ("newer", 0.0)]
    shared = requests.variants(options(variant_name="next", variant_weights='{"next": 0.1}'), "new", again)
    assert [each["InitialVariantWeight"] for each in shared] == [1.0, 0.1]


@lru_cache
def instance_types() -> list[str]:
    model = botocore.session.get_session().get_service_model("sagemaker")
    variants = model.operation_model("CreateEndpointConfig").input_shape.members["ProductionVariants"]
    return list(variants.member.members["InstanceType"].enum)


def test_only_graviton_instances_get_an_image_for_arm64() -> None:
    arm = {each for each in instance_types() if options(instance_type=each).platform == "linux/arm64"}
    families = {each.split(".")[1] for each in arm}
    assert {"m6g", "c7g", "c6gn", "r8g"} <= families
    assert not families & {"g4dn", "g5", "g6", "m5", "p4d", "inf2", "trn1"}
    assert all(re.fullmatch(r"[a-z]\d+g[a-z]*", each) for each in families)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(instance_types()))
def test_every_instance_type_of_aws_is_accepted(kind: str) -> None:
    check_requests(MODEL, options(instance_type=kind))


def test_costs_are_described() -> None:
    assert options(instance_count="2").costs == "2 x ml.m5.xlarge, by the hour"
    assert "1 to 4 x" in options(max_instances="4").costs
    assert "by the request" in options(serverless_config='{"MemorySizeInMB": 1024, "MaxConcurrency": 1}').costs


def test_options_of_a_job_and_of_its_model_are_separated() -> None:
    model, job = split({"instance_type": "ml.m5.large", "content_type": "application/jsonlines"})
    assert (model.instance_type, job.content_type) == ("ml.m5.large", "application/jsonlines")
    with pytest.raises(WrongUsage, match="contenttype") as caught:
        split({"contenttype": "x"})
    assert "did you mean 'content_type'?" in caught.value.remedy


def test_the_header_of_csv_is_part_of_a_jobs_content_type() -> None:
    assert with_header(TransformOptions()).content_type == "text/csv"
    assert with_header(TransformOptions(header="absent")).content_type == "text/csv; header=absent"
    whole = TransformOptions(header="present", split_type="None")
    assert with_header(whole).content_type == "text/csv; header=present"
    for job in (TransformOptions(header="present"), TransformOptions(content_type='text/csv; header="present"')):
        with pytest.raises(WrongUsage, match="lose its first row"):
            with_header(job)
    with pytest.raises(WrongUsage, match="application/jsonlines"):
        with_header(TransformOptions(header="absent", content_type="application/jsonlines"))


def test_input_and_output_are_joined_only_in_one_format() -> None:
    with pytest.raises(WrongUsage, match=r"text/csv and application/jsonlines") as caught:
        with_header(TransformOptions(join_resource="Input"))
    assert caught.value.remedy == "use -C accept=text/csv"
    with_header(TransformOptions(join_resource="Input", accept="text/csv"))


# --- AWS's model -----------------------------------------------------------------------------------------------------


def shapes(shape: Any, seen: set[str]) -> Iterator[Any]:
    if shape.name in seen:
        return
    seen.add(shape.name)
    yield shape
    below = {
        "structure": lambda: shape.members.values(),
        "list": lambda: [shape.member],
        "map": lambda: [shape.key, shape.value],
    }
    for each in below.get(shape.type_name, list)():
        yield from shapes(each, seen)


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_every_pattern_of_an_operation_can_be_compiled(service: str, operation: str) -> None:
    model = botocore.session.get_session().get_service_model(service).operation_model(operation)
    patterns = [each.metadata["pattern"] for each in shapes(model.input_shape, set()) if "pattern" in each.metadata]
    assert [each for each in patterns if compiled(each) is None] == []


def test_every_origin_of_a_request_is_an_option() -> None:
    known = {name for name, _, _ in described(SageMakerOptions)} | {"NAME"}
    assert {option for origins in requests.ORIGINS.values() for option in origins.values()} <= known
    assert option_of(
        "ProductionVariants[0].ServerlessConfig.MaxConcurrency", requests.ORIGINS["CreateEndpointConfig"]
    ) == ("serverless_config.MaxConcurrency")
