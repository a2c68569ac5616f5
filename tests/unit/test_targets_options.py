"""Conversion of `-C KEY=VALUE` to typed options, and lookup of targets by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.core.errors import WrongUsage
from likewise.core.option_fields import as_json, coerce, described, parse_config
from likewise.server import ServerOptions
from likewise.targets.container.container_options import ContainerTargetOptions
from likewise.targets.local.local_options import LocalOptions
from likewise.targets.ray.ray_options import RayOptions
from likewise.targets.registry import names, open_target


@dataclass(frozen=True)
class Some:
    """Options of every supported type."""

    replicas: int | Literal["auto"] = field(default=1, metadata={"help": "How many."})
    share: float = 0.5
    on: bool = False
    path: Path | None = None
    more: dict[str, Any] = field(default_factory=dict)
    zones: list[str] | None = None
    title: str = "x"


@given(
    st.builds(
        Some,
        replicas=st.integers() | st.just("auto"),
        share=st.floats(allow_nan=False, allow_infinity=False),
        on=st.booleans(),
        path=st.none() | st.just(Path("/a/b")),
        more=st.dictionaries(st.text(), st.integers() | st.text()),
        zones=st.none() | st.lists(st.text()),
        title=st.text(),
    )
)
def test_options_survive_a_json_round_trip(options: Some) -> None:
    assert coerce(Some, as_json(options)) == options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("replicas=3", Some(replicas=3)),
        ("replicas=auto", Some(replicas="auto")),
        ("share=2", Some(share=2.0)),
        ("on=true", Some(on=True)),
        ("on=0", Some(on=False)),
        ('more={"num_cpus": 0.5}', Some(more={"num_cpus": 0.5})),
        ('zones=["a"]', Some(zones=["a"])),
        ("path=/tmp/x", Some(path=Path("/tmp/x"))),
        ("title=a=b", Some(title="a=b")),
    ],
)
def test_strings_are_converted_to_the_fields_types(text: str, expected: Some) -> None:
    assert coerce(Some, parse_config([text])) == expected


@pytest.mark.parametrize(
    "text", ["replicas=two", "replicas=1.5", "share=half", "on=maybe", "more=[1]", "more={", "zones={}", "path="]
)
def test_value_of_a_wrong_type_is_rejected_by_name(text: str) -> None:
    with pytest.raises(WrongUsage, match=text.partition("=")[0]):
        coerce(Some, parse_config([text]))


def test_booleans_and_numbers_are_not_interchangeable() -> None:
    for values in ({"replicas": True}, {"share": False}, {"on": 1}):
        with pytest.raises(WrongUsage):
            coerce(Some, values)


def test_unknown_option_is_reported_with_the_most_similar_one() -> None:
    with pytest.raises(WrongUsage, match="'replcas'") as rejected:
        coerce(Some, {"replcas": "2"})
    assert "did you mean 'replicas'?" in rejected.value.remedy


@pytest.mark.parametrize("pairs", [["replicas"], ["=2"], ["share=1", "share=2"]])
def test_malformed_or_repeated_pairs_are_rejected(pairs: list[str]) -> None:
    with pytest.raises(WrongUsage):
        parse_config(pairs)


def test_described_options_have_default_and_help() -> None:
    assert described(Some)[0] == ("replicas", "1", "How many.")
    assert ("more", "{}", "") in described(Some)


def test_built_in_targets_are_registered_as_entry_points_and_unknown_ones_are_rejected() -> None:
    assert {"local", "ray", "ray-serve"} <= set(names())
    with pytest.raises(WrongUsage) as rejected:
        open_target("ray-server")
    assert "did you mean 'ray-serve'?" in rejected.value.remedy
    with pytest.raises(WrongUsage, match="no target"):
        open_target("")


WRONG = {
    LocalOptions: {"port": "70000", "deadline_s": "-1", "run_timeout_s": "-2", "start_timeout_s": "-5", "workers": "-3",
                   "queue_tokens": "0", "cache_bytes": "-1", "drain_linger_s": "-1"},
    ContainerTargetOptions: {"port": "-1", "start_timeout_s": "0", "stop_timeout_s": "-1", "cpus": "0"},
    RayOptions: {"deadline_s": "0", "queue_tokens": "0", "canary": "51", "timeout_s": "0", "canary_requests": "0"},
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_numbers_outside_their_range_are_refused(kind: type[Any]) -> None:
    for name, value in WRONG[kind].items():
        with pytest.raises(WrongUsage, match=f"option '{name.strip()}' is") as refused:
            coerce(kind, {name.strip(): value})
        assert refused.value.remedy.startswith("use a number ")
    with pytest.raises(WrongUsage, match="port"):
        ServerOptions(port=65536)
