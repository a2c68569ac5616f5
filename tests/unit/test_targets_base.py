"""What plans, receipts and statuses say as JSON, and what of it people are shown."""

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


def test_a_status_names_its_bundle_in_a_field_and_where_it_was_before() -> None:
    told = json.loads(json.dumps(Status("ready", "http://new", details={"pid": 7}, bundle="sha256:ab").as_dict()))
    assert told["bundle"] == "sha256:ab"
    assert told["details"] == {"pid": 7, "bundle": "sha256:ab"}


def test_a_receipt_shows_what_every_target_names_alike() -> None:
    assert RECEIPT.shown() == {"url": "http://new", "costs": "nothing"}
    assert RECEIPT.output("pid") == 7


def test_a_receipt_is_the_same_after_json() -> None:
    assert Receipt.from_dict(json.loads(json.dumps(RECEIPT.as_dict()))) == RECEIPT
