"""Receipts and statuses as JSON, and the outputs that are shown to users."""

from __future__ import annotations

import json
from pathlib import Path

from likewise.core.spec import ModelSpec
from likewise.targets.base import Receipt, Status

RECEIPT = Receipt(
    "world",
    "one",
    ModelSpec("sha256:ab", Path("/bundle"), "models:/m/1"),
    {},
    {"place": {"folder": "/x", "url": "http://old"}, "start": {"url": "http://new", "pid": 7, "costs": "nothing"}},
    "2026-01-01T00:00:00+00:00",
    "2026-01-01T00:00:00+00:00",
)


def test_status_has_bundle_as_field_and_in_details() -> None:
    document = json.loads(json.dumps(Status("ready", "http://new", details={"pid": 7}, bundle="sha256:ab").as_dict()))
    assert document["bundle"] == "sha256:ab"
    assert document["details"] == {"pid": 7, "bundle": "sha256:ab"}


def test_receipt_shows_only_outputs_common_to_all_targets() -> None:
    assert RECEIPT.shown() == {"url": "http://new", "costs": "nothing"}
    assert RECEIPT.output("pid") == 7


def test_receipt_survives_a_json_round_trip() -> None:
    assert Receipt.from_dict(json.loads(json.dumps(RECEIPT.as_dict()))) == RECEIPT
