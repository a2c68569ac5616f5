"""The canary without Ray: the decision as a function of counts and times, what adds up, and the split in a replica."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from likewise.targets.ray import traffic_split as split_module
from likewise.targets.ray.service import ReplicaApp
from likewise.targets.ray.traffic_split import FIRST, TrafficSplit, answered, asks
from likewise.targets.ray.verdict import ALPHA, ENOUGH, Rules, at_least, at_most, decide
from likewise.targets.ray.version_stats import Side

RULES = Rules(seconds=30, requests=500, errors=0.01, slower=2.0)
SECONDS = st.floats(1e-4, 100)


def side(good: int, failed: int = 0, seconds: float = 0.05) -> Side:
    made = Side(failed=failed)
    for _ in range(good):
        made.add(seconds)
    return made


@given(st.integers(1, 5000), st.data())
def test_the_bounds_hold_the_share_that_was_seen(of: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, of))
    low, high = at_least(hits, of), at_most(hits, of)
    assert 0 <= low <= hits / of + 1e-9
    assert hits / of - 1e-9 <= high <= 1
    if hits < of:
        assert at_least(hits + 1, of) >= low


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
def test_looking_after_every_request_is_seldom_wrong(share: float) -> None:
    """The share is outside of its bounds at any look in fewer runs than the bounds promise."""
    source, wrong, runs = random.Random(7), 0, 400
    for _ in range(runs):
        hits = 0
        for of in range(1, 201):
            hits += source.random() < share
            if at_least(hits, of) > share:
                wrong += 1
                break
    assert wrong <= ALPHA * runs


@given(st.lists(SECONDS, min_size=1, max_size=200), st.floats(0.01, 1), SECONDS)
def test_times_are_kept_to_a_tenth(times: list[float], share: float, limit: float) -> None:
    made = Side()
    for each in times:
        made.add(each)
    exact = sorted(times)[max(0, -int(-share * len(times) // 1) - 1)]
    assert exact * 0.999 <= made.quantile(share) <= exact * 1.11
    assert (
        sum(each > limit * 1.11 for each in times) <= made.beyond(limit) <= sum(each >= limit * 0.999 for each in times)
    )


@given(st.lists(st.tuples(st.lists(SECONDS, max_size=9), st.integers(0, 9), st.integers(0, 9)), max_size=5))
def test_replicas_add_up(parts: list[tuple[list[float], int, int]]) -> None:
    sides = []
    for times, failed, late in parts:
        made = Side(failed=failed + late, late=late)
        for each in times:
            made.add(each)
        sides.append(made)
    total = Side.sum(each.as_dict() for each in sides)
    assert total.judged == sum(each.judged for each in sides)
    assert total.times == Side.sum([total.as_dict()]).times
    assert (total.good, total.late) == (total.times.total(), sum(late for _, _, late in parts))


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 50), st.floats(0, 60))
def test_every_watch_ends_and_only_then_is_it_promoted(old: int, good: int, failed: int, elapsed: float) -> None:
    new = side(good, failed)
    verdict = decide(side(old), new, elapsed, RULES)
    ended = elapsed >= RULES.seconds or (new.judged >= RULES.requests and old >= ENOUGH)
    assert (verdict.kind == "wait") <= (not ended)
    assert (verdict.kind == "promote") <= (ended and new.failing <= RULES.errors)
    if new.failing > RULES.errors and ended:
        assert verdict.kind == "roll_back"
    if at_least(failed, new.judged or 1) > RULES.errors:
        assert verdict.kind == "roll_back"


@given(st.integers(0, 2000), st.integers(0, 400), st.floats(0, 29), st.floats(0.001, 1))
def test_a_version_like_the_old_one_is_never_rolled_back(old: int, new: int, elapsed: float, seconds: float) -> None:
    assert decide(side(old, 0, seconds), side(new, 0, seconds), elapsed, RULES).kind == "wait"
    assert decide(side(old, 0, seconds), side(new, 0, seconds), 30, RULES).kind == "promote"


@given(st.integers(ENOUGH, 500), st.integers(20, 200), st.floats(0.01, 1))
def test_five_times_as_slow_is_rolled_back_before_the_end(old: int, new: int, seconds: float) -> None:
    verdict = decide(side(old, 0, seconds), side(new, 0, 5 * seconds), 1, RULES)
    assert verdict.kind == "roll_back"
    assert f"{new} of {new} answers took more than 2 times as long" in verdict.why


def test_few_requests_are_named_as_such() -> None:
    assert decide(side(100), side(0, 1), 1, RULES).kind == "wait"  # one is no evidence
    assert decide(side(100), side(0, 2), 1, RULES).kind == "roll_back"
    doubt = decide(side(100), side(20, 1), 30, RULES)
    assert (doubt.kind, "in doubt the old version stays" in doubt.why) == ("roll_back", True)
    nobody = decide(side(0), side(0), 30, RULES)
    assert (nobody.kind, nobody.why) == ("promote", "no request reached it in 30 s, so only its start speaks for it")
    few = decide(side(30), side(3), 30, RULES)
    assert few.why == "0 of 3 requests failed; not more than 90.6% can be failing, at 99 % confidence"
    spread, slow = side(30), side(4, seconds=0.5)
    for _ in range(10):
        spread.add(1.0)  # what it calls slow is within its own p95
    assert decide(spread, slow, 30, RULES).kind == "promote"  # four times decide nothing
    slow.add(0.5)
    assert decide(spread, slow, 30, RULES).kind == "roll_back"
    tail = side(180)
    for _ in range(40):
        tail.add(1.0)
    assert "its p95 is" in decide(side(500), tail, 1, RULES).why


class Handle:
    """What Serve's handle of the canary is to a split; `reply` may be an exception, or None for never."""

    def __init__(self, reply: Any) -> None:
        self.reply, self.asked = reply, list[dict[str, Any]]()
        self.cancelled = 0
        self.answer = self

    def remote(self, request: dict[str, Any]) -> Handle:
        self.asked.append(request)
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def __await__(self) -> Any:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        if self.reply is None:
            await asyncio.Event().wait()
        if isinstance(self.reply, Exception):
            raise self.reply
        return await self.reply(self.asked[-1]) if callable(self.reply) else self.reply


def app_of(version: int, status: int = 200) -> Starlette:
    async def told(request: Request) -> Response:
        body = (await request.body()).decode()
        return JSONResponse([version, body, request.url.query, request.headers.get("x-mine")], status_code=status)

    return Starlette(routes=[Route(path, told, methods=["POST"]) for path in ("/invocations", "/v2/models/m/infer")])


def split_of(
    handle: Handle, old: Starlette, monkeypatch: pytest.MonkeyPatch, **told: Any
) -> tuple[ReplicaApp, TrafficSplit]:
    """A replica's door whose split sends everything to `handle`."""
    from ray import serve

    monkeypatch.setattr(serve, "get_deployment_handle", lambda deployment, app: handle)
    door = ReplicaApp(old)
    asked = {
        "run": "1",
        "app": "a",
        "deployment": "d",
        "share": 100.0,
        "deadline_s": 9.0,
        "body_limit_bytes": 100,
        **told,
    }
    door.split = TrafficSplit(old, asked)
    return door, door.split


async def ask(door: ReplicaApp, times: int, path: str = "", body: str = "text") -> list[httpx.Response]:
    transport = httpx.ASGITransport(door, root_path="/one")
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        headers = {"x-mine": "yes"}
        return [await client.post(f"/one{path}?q=1", content=body, headers=headers) for _ in range(times)]


def test_the_canary_answers_what_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle(lambda request: answered(ReplicaApp(app_of(2)), request))
    door, split = split_of(handle, app_of(1), monkeypatch)
    answers = asyncio.run(ask(door, FIRST + 3))
    assert [each.json() for each in answers] == [[1, "text", "q=1", "yes"]] * FIRST + [[2, "text", "q=1", "yes"]] * 3
    figures = split.figures()
    assert (figures["old"]["good"], figures["new"]["good"], figures["new"]["failed"]) == (FIRST, 3, 0)
    assert handle.asked[0]["scope"]["path"] == "/invocations"
    assert [each.json()[0] for each in asyncio.run(ask(door, 2, "/v2/models/m/infer"))] == [2, 2]


@pytest.mark.parametrize("reply", [(500, [], b"broken", 0.1), (422, [], b"row 0", 0.1), RuntimeError("the actor died")])
def test_what_the_canary_fails_the_old_version_answers(reply: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    door, split = split_of(Handle(reply), app_of(1), monkeypatch)
    answers = asyncio.run(ask(door, FIRST + 2))
    assert {(each.status_code, each.json()[0], each.json()[1]) for each in answers} == {(200, 1, "text")}
    figures = split.figures()
    assert (figures["new"]["failed"], figures["new"]["late"]) == (2, 0)
    assert any(word in figures["said"] for word in ("broken", "row 0", "the actor died"))


def test_a_canary_that_never_answers_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "PATIENCE_S", 0.05)
    handle = Handle(None)
    door, split = split_of(handle, app_of(1), monkeypatch)
    assert {each.json()[0] for each in asyncio.run(ask(door, FIRST + 1))} == {1}
    figures = split.figures()
    assert (figures["new"]["failed"], figures["new"]["late"], handle.cancelled) == (1, 1, 1)


def test_what_both_refuse_counts_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    old = app_of(1)
    door, split = split_of(Handle((400, [], b"no", 0.1)), old, monkeypatch)
    asyncio.run(ask(door, FIRST))
    split._app = app_of(1, 400)
    assert [each.status_code for each in asyncio.run(ask(door, 2))] == [400, 400]
    assert split.figures()["new"]["failed"] == 0


def test_a_body_too_large_is_the_old_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle((200, [], b"", 0.1))
    door, _ = split_of(handle, app_of(1), monkeypatch)
    asyncio.run(ask(door, FIRST))
    [answer] = asyncio.run(ask(door, 1, body="x" * 101))
    assert (answer.json()[:2], handle.asked) == ([1, "x" * 101], [])


@pytest.mark.parametrize(
    ("method", "path", "may"),
    [
        ("POST", "/one/invocations", True),
        ("POST", "/one/v2/models/m/infer", True),
        ("POST", "/one/v2/models/m/versions/1/infer", False),
        ("GET", "/one/invocations", False),
        ("POST", "/one/ready", False),
    ],
)
def test_only_questions_go_to_the_canary(method: str, path: str, may: bool) -> None:
    assert asks({"type": "http", "method": method, "path": path, "root_path": "/one"}) is may


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=80), st.lists(st.sampled_from([1, 7, 80]), max_size=5))
def test_a_body_in_parts_arrives_whole_at_either(body: bytes, cuts: list[int]) -> None:
    parts, rest = list[bytes](), body
    for each in cuts:
        parts.append(rest[:each])
        rest = rest[each:]
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": rest, "more_body": False})

    async def read() -> tuple[bytes | None, bytes]:
        coming = iter(messages)

        async def receive() -> Any:
            return next(coming)

        whole, again = await split_module._read(receive, 100)
        said = [await again() for _ in messages]
        return whole, b"".join(each["body"] for each in said)

    assert asyncio.run(read()) == (body, body)
