"""Container settings: read from the environment; errors name the variable."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.container.machine import configure_environment
from likewise.container.settings import NOT_OPTIONS, ContainerOptions, read_options
from likewise.core.cores import usable_cores
from likewise.core.errors import WrongUsage
from likewise.server import ServerOptions

MB = 1024 * 1024
DOCS = Path(__file__).parents[2] / "docs"


def test_the_defaults_match_sagemakers_requirements() -> None:
    options = read_options({"PATH": "/bin", "AWS_REGION": "eu-west-1"})
    assert (options.host, options.port, options.insecure) == ("0.0.0.0", 8080, True)
    assert options.body_limit_bytes == 25 * MB
    assert options.deadline_s < 60
    assert options.model_dir == Path("/opt/ml/model")
    assert (options.bundle, options.trust, options.engine) == (None, False, None)


def test_every_server_option_is_a_container_option() -> None:
    names = {field.name for field in fields(ContainerOptions)}
    assert {field.name for field in fields(ServerOptions)} < names
    assert all(field.metadata.get("help") for field in fields(ContainerOptions))


def test_settings_are_typed() -> None:
    options = read_options(
        {
            "LIKEWISE_TRUST": "true",
            "LIKEWISE_ENGINE": "pyfunc",
            "LIKEWISE_DEADLINE_S": "2.5",
            "LIKEWISE_CACHE_BYTES": "0",
            "LIKEWISE_BUNDLE": "/b",
            "LIKEWISE_ACCESS_LOG": "no",
            "LIKEWISE_PORT": "",
        }
    )
    assert options.trust is True
    assert options.engine == "pyfunc"
    assert (options.deadline_s, options.cache_bytes) == (2.5, 0)
    assert options.bundle == Path("/b")
    assert options.access_log is False
    assert options.port == 8080


def test_sagemakers_port_takes_precedence() -> None:
    assert read_options({"LIKEWISE_PORT": "1", "SAGEMAKER_BIND_TO_PORT": "2"}).port == 2
    assert read_options({"LIKEWISE_PORT": "1"}).port == 1


def test_likewises_workers_take_precedence_over_sagemakers() -> None:
    assert read_options({"SAGEMAKER_MODEL_SERVER_WORKERS": "3"}).workers == 3
    assert read_options({"SAGEMAKER_MODEL_SERVER_WORKERS": "3", "LIKEWISE_WORKERS": "2"}).workers == 2
    assert read_options({"SAGEMAKER_MODEL_SERVER_WORKERS": "3", "LIKEWISE_WORKERS": "auto"}).workers is None
    assert read_options({}).workers is None


def test_a_batch_transform_job_has_a_longer_deadline_and_a_larger_body_limit() -> None:
    job = {"SAGEMAKER_BATCH": "true"}
    assert read_options(job).deadline_s > 60
    assert read_options(job).body_limit_bytes == 25 * MB
    assert read_options({**job, "SAGEMAKER_MAX_PAYLOAD_IN_MB": "90"}).body_limit_bytes == 90 * MB
    assert read_options({**job, "SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}).body_limit_bytes == 100 * MB
    assert read_options({**job, "LIKEWISE_DEADLINE_S": "7"}).deadline_s == 7
    assert read_options({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "90"}).body_limit_bytes == 25 * MB


def test_trust_accepts_strict_like_the_mlflow_plugins() -> None:
    assert read_options({"LIKEWISE_TRUST": "strict"}).trust is False


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("LIKEWISE_DEADLINE_S", "soon"),
        ("LIKEWISE_DEADLINE_S", "0"),
        ("LIKEWISE_DEADLINE_S", "-1"),
        ("LIKEWISE_DEADLINE_S", "nan"),
        ("LIKEWISE_DEADLINE_S", "inf"),
        ("LIKEWISE_QUEUE_TOKENS", "0"),
        ("LIKEWISE_QUEUE_TOKENS", "1.5"),
        ("LIKEWISE_CACHE_BYTES", "-1"),
        ("LIKEWISE_WORKERS", "many"),
        ("LIKEWISE_TRUST", "perhaps"),
        ("SAGEMAKER_BIND_TO_PORT", "http"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "-2"),
        ("LIKEWISE_TRUSTED", "true"),
        ("LIKEWISE_deadline_s", "1"),
    ],
)
def test_the_error_for_an_invalid_setting_names_the_variable(variable: str, text: str) -> None:
    with pytest.raises(WrongUsage) as refused:
        read_options({variable: text})
    assert variable in refused.value.cause
    assert refused.value.remedy


def test_the_error_for_an_invalid_payload_limit_names_the_variable() -> None:
    with pytest.raises(WrongUsage, match="SAGEMAKER_MAX_PAYLOAD_IN_MB"):
        read_options({"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "six"})


def test_all_settings_are_documented_and_nothing_else() -> None:
    documented = set(re.findall(r"LIKEWISE_[A-Z_]+(?=`)", (DOCS / "container.md").read_text()))
    internal = {"THREAD_VARIABLES"}
    names = {field.name.upper() for field in fields(ContainerOptions)} | NOT_OPTIONS - internal
    examples = {"LIKEWISE_DEMO_SERVICE_HOST"}
    assert documented - examples == {f"LIKEWISE_{name}" for name in names} - {"LIKEWISE_DEBUG"}


def of_kubernetes(service: str, ports: Mapping[str, tuple[int, str]], address: str) -> dict[str, str]:
    """The variables of a Service. ports: number and protocol by name."""
    prefix, host = service.upper().replace("-", "_"), f"[{address}]" if ":" in address else address
    number, protocol = next(iter(ports.values()))
    variables = {
        f"{prefix}_SERVICE_HOST": address,
        f"{prefix}_SERVICE_PORT": str(number),
        f"{prefix}_PORT": f"{protocol}://{host}:{number}",
    }
    for name, (number, protocol) in ports.items():
        one = f"{prefix}_PORT_{number}_{protocol.upper()}"
        variables[f"{prefix}_SERVICE_PORT_{name.upper().replace('-', '_')}"] = str(number)
        variables |= {one: f"{protocol}://{host}:{number}", f"{one}_PROTO": protocol}
        variables |= {f"{one}_PORT": str(number), f"{one}_ADDR": address}
    return variables


@given(
    service=st.from_regex(r"likewise(-[a-z0-9]+)*", fullmatch=True),
    ports=st.dictionaries(
        st.from_regex(r"[a-z]([a-z0-9-]*[a-z0-9])?", fullmatch=True),
        st.tuples(st.integers(1, 65535), st.sampled_from(["tcp", "udp", "sctp"])),
        min_size=1,
    ),
    address=st.ip_addresses().map(str),
)
def test_the_variables_of_a_kubernetes_service_are_no_settings(
    service: str, ports: dict[str, tuple[int, str]], address: str
) -> None:
    variables = of_kubernetes(service, ports, address)
    assert read_options(variables) == read_options({})
    assert read_options({**variables, "LIKEWISE_DEADLINE_S": "7"}).deadline_s == 7


@pytest.mark.parametrize(
    ("variable", "text", "meant"),
    [
        ("LIKEWISE_CELL_LIMIT", "10", "LIKEWISE_CELLS_LIMIT"),
        ("LIKEWISE_DEADLINE", "10", "LIKEWISE_DEADLINE_S"),
        ("LIKEWISE_BODY_LIMIT", "10", "LIKEWISE_BODY_LIMIT_BYTES"),
        ("LIKEWISE_deadline_s", "10", "LIKEWISE_DEADLINE_S"),
        ("likewise_deadline_s", "10", "LIKEWISE_DEADLINE_S"),
        ("LIKEWISE_HTTP_PORT", "9000", "LIKEWISE_PORT"),  # not the form of Kubernetes
        ("LIKEWISE_TRUSTED", "true", "LIKEWISE_TRUST"),
    ],
)
def test_a_near_miss_of_a_setting_is_named(variable: str, text: str, meant: str) -> None:
    named: list[WrongUsage] = []
    assert read_options({variable: text, "LIKEWISE_WORKERS": "2"}, named.append).workers == 2
    (unknown,) = named
    assert variable in unknown.cause
    assert f"did you mean {meant}?" in unknown.remedy


def test_an_invalid_port_is_not_taken_for_one_of_kubernetes() -> None:
    with pytest.raises(WrongUsage, match="LIKEWISE_PORT"):
        read_options({"LIKEWISE_PORT": "http://10.0.0.1:80"})


def test_the_error_for_a_misspelt_setting_suggests_the_closest_name() -> None:
    with pytest.raises(WrongUsage) as refused:
        read_options({"LIKEWISE_DEADLINE": "1"})
    assert "LIKEWISE_DEADLINE_S?" in refused.value.remedy


def test_other_likewise_variables_are_ignored() -> None:
    assert read_options({f"LIKEWISE_{name}": "/x" for name in NOT_OPTIONS}) == read_options({})


@given(st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_arbitrary_text_is_accepted_or_rejected_by_name(text: str) -> None:
    for variable in ("LIKEWISE_DEADLINE_S", "LIKEWISE_WORKERS", "LIKEWISE_TRUST", "SAGEMAKER_BIND_TO_PORT"):
        assert _refused(variable, text) in (None, variable)


def test_thread_counts_follow_the_quota_and_a_home_exists() -> None:
    environment: dict[str, str] = {}
    configure_environment(environment)
    assert environment["OMP_NUM_THREADS"] == str(usable_cores())
    assert Path(environment["HOME"]).is_dir()


def test_variables_set_by_the_user_are_kept() -> None:
    environment = {"OMP_NUM_THREADS": "7", "HOME": "/"}
    configure_environment(environment)
    assert environment["OMP_NUM_THREADS"] == "7"


def _refused(variable: str, text: str) -> str | None:
    """The variable that the error names, or None if there is no error."""
    try:
        read_options({variable: text})
    except WrongUsage as refused:
        return variable if variable in refused.cause else refused.cause
    return None
