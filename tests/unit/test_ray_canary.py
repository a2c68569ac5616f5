"""The canary without Ray: the decision as a function of counts and times, sums of statistics, and the traffic split."""

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
from likewise.targets.ray.traffic_split import MIN_OWN_RESPONSES, TrafficSplit, is_inference, respond
from likewise.targets.ray.verdict import ALPHA, MIN_OLD, Rules, decide, lower_bound, upper_bound
from likewise.targets.ray.version_stats import VersionStats

RULES = Rules(seconds=30, requests=500, errors=0.01, slower=2.0)
SECONDS = st.floats(1e-4, 100)


def stats(good: int, failed: int = 0, seconds: float = 0.05) -> VersionStats:
    result = VersionStats(failed=failed)
    for _ in range(good):
        result.add(seconds)
    return result


@given(st.integers(1, 5000), st.data())
def test_bounds_enclose_the_observed_fraction(of: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, of))
    low, high = lower_bound(hits, of), upper_bound(hits, of)
    assert 0 <= low <= hits / of + 1e-9
    assert hits / of - 1e-9 <= high <= 1
    if hits < of:
        assert lower_bound(hits + 1, of) >= low


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.5])
def test_bounds_checked_after_every_request_are_rarely_wrong(fraction: float) -> None:
    """The true fraction leaves its bounds at any time in at most ALPHA of the runs."""
    source, wrong, runs = random.Random(7), 0, 400
    for _ in range(runs):
        hits = 0
        for of in range(1, 201):
            hits += source.random() < fraction
            if lower_bound(hits, of) > fraction:
                wrong += 1
                break
    assert wrong <= ALPHA * runs


@given(st.lists(SECONDS, min_size=1, max_size=200), st.floats(0.01, 1), SECONDS)
def test_times_are_accurate_to_ten_percent(times: list[float], fraction: float, limit: float) -> None:
    histogram = VersionStats()
    for each in times:
        histogram.add(each)
    exact = sorted(times)[max(0, -int(-fraction * len(times) // 1) - 1)]
    assert exact * 0.999 <= histogram.quantile(fraction) <= exact * 1.11
    assert (
        sum(each > limit * 1.11 for each in times)
        <= histogram.beyond(limit)
        <= sum(each >= limit * 0.999 for each in times)
    )


@given(st.lists(st.tuples(st.lists(SECONDS, max_size=9), st.integers(0, 9), st.integers(0, 9)), max_size=5))
def test_statistics_of_replicas_are_summed(parts: list[tuple[list[float], int, int]]) -> None:
    parts_stats = []
    for times, failed, late in parts:
        replica = VersionStats(failed=failed + late, late=late)
        for each in times:
            replica.add(each)
        parts_stats.append(replica)
    total = VersionStats.sum(each.as_dict() for each in parts_stats)
    assert total.judged == sum(each.judged for each in parts_stats)
    assert total.times == VersionStats.sum([total.as_dict()]).times
    assert (total.good, total.late) == (total.times.total(), sum(late for _, _, late in parts))


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 50), st.floats(0, 60))
def test_version_is_promoted_only_at_the_end_of_the_watch(old: int, good: int, failed: int, elapsed: float) -> None:
    new = stats(good, failed)
    verdict = decide(stats(old), new, elapsed, RULES)
    ended = elapsed >= RULES.seconds or (new.judged >= RULES.requests and old >= MIN_OLD)
    assert (verdict.kind == "wait") <= (not ended)
    assert (verdict.kind == "promote") <= (ended and new.failing <= RULES.errors)
    if new.failing > RULES.errors and ended:
        assert verdict.kind == "roll_back"
    if lower_bound(failed, new.judged or 1) > RULES.errors:
        assert verdict.kind == "roll_back"


@given(st.integers(0, 2000), st.integers(0, 400), st.floats(0, 29), st.floats(0.001, 1))
def test_equally_good_version_is_never_rolled_back(old: int, new: int, elapsed: float, seconds: float) -> None:
    assert decide(stats(old, 0, seconds), stats(new, 0, seconds), elapsed, RULES).kind == "wait"
    assert decide(stats(old, 0, seconds), stats(new, 0, seconds), 30, RULES).kind == "promote"


@given(st.integers(MIN_OLD, 500), st.integers(20, 200), st.floats(0.01, 1))
def test_five_times_slower_version_is_rolled_back_early(old: int, new: int, seconds: float) -> None:
    verdict = decide(stats(old, 0, seconds), stats(new, 0, 5 * seconds), 1, RULES)
    assert verdict.kind == "roll_back"
    assert f"{new} of {new} responses took more than 2 times as long" in verdict.why


def test_verdict_with_few_requests() -> None:
    assert decide(stats(100), stats(0, 1), 1, RULES).kind == "wait"  # one failure is not enough
    assert decide(stats(100), stats(0, 2), 1, RULES).kind == "roll_back"
    doubt = decide(stats(100), stats(20, 1), 30, RULES)
    assert (doubt.kind, "in doubt the old version stays" in doubt.why) == ("roll_back", True)
    idle = decide(stats(0), stats(0), 30, RULES)
    assert (idle.kind, idle.why) == ("promote", "it got no request in 30 s; only its successful start was verified")
    few = decide(stats(30), stats(3), 30, RULES)
    assert few.why == "0 of 3 requests failed; the failure rate is at most 90.6% at 99 % confidence"
    spread, slow = stats(30), stats(4, seconds=0.5)
    for _ in range(10):
        spread.add(1.0)  # the canary's times are within the old version's p95
    assert decide(spread, slow, 30, RULES).kind == "promote"  # four times are not enough for a decision
    slow.add(0.5)
    assert decide(spread, slow, 30, RULES).kind == "roll_back"
    tail = stats(180)
    for _ in range(40):
        tail.add(1.0)
    assert "its p95 is" in decide(stats(500), tail, 1, RULES).why


class Handle:
    """Stands in for Serve's handle of the canary; `reply` may be an exception, or None to never respond."""

    def __init__(self, reply: Any) -> None:
        self.reply, self.requests = reply, list[dict[str, Any]]()
        self.cancelled = 0
        self.answer = self

    def remote(self, request: dict[str, Any]) -> Handle:
        self.requests.append(request)
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
        return await self.reply(self.requests[-1]) if callable(self.reply) else self.reply


def app_of(version: int, status: int = 200) -> Starlette:
    async def echo(request: Request) -> Response:
        body = (await request.body()).decode()
        return JSONResponse([version, body, request.url.query, request.headers.get("x-mine")], status_code=status)

    return Starlette(routes=[Route(path, echo, methods=["POST"]) for path in ("/invocations", "/v2/models/m/infer")])


def split_of(
    handle: Handle, old: Starlette, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> tuple[ReplicaApp, TrafficSplit]:
    """A replica's app whose split forwards all requests to `handle`."""
    from ray import serve

    monkeypatch.setattr(serve, "get_deployment_handle", lambda deployment, app: handle)
    app = ReplicaApp(old)
    request = {
        "run": "1",
        "app": "a",
        "deployment": "d",
        "share": 100.0,
        "deadline_s": 9.0,
        "body_limit_bytes": 100,
        **settings,
    }
    app.split = TrafficSplit(old, request)
    return app, app.split


async def post(app: ReplicaApp, times: int, path: str = "", body: str = "text") -> list[httpx.Response]:
    transport = httpx.ASGITransport(app, root_path="/one")
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        headers = {"x-mine": "yes"}
        return [await client.post(f"/one{path}?q=1", content=body, headers=headers) for _ in range(times)]


def test_canary_handles_forwarded_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle(lambda request: respond(ReplicaApp(app_of(2)), request))
    app, split = split_of(handle, app_of(1), monkeypatch)
    responses = asyncio.run(post(app, MIN_OWN_RESPONSES + 3))
    assert [each.json() for each in responses] == [[1, "text", "q=1", "yes"]] * MIN_OWN_RESPONSES + [
        [2, "text", "q=1", "yes"]
    ] * 3
    figures = split.figures()
    assert (figures["old"]["good"], figures["new"]["good"], figures["new"]["failed"]) == (MIN_OWN_RESPONSES, 3, 0)
    assert handle.requests[0]["scope"]["path"] == "/invocations"
    assert [each.json()[0] for each in asyncio.run(post(app, 2, "/v2/models/m/infer"))] == [2, 2]


@pytest.mark.parametrize("reply", [(500, [], b"broken", 0.1), (422, [], b"row 0", 0.1), RuntimeError("the actor died")])
def test_old_version_handles_requests_that_the_canary_fails(reply: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    app, split = split_of(Handle(reply), app_of(1), monkeypatch)
    responses = asyncio.run(post(app, MIN_OWN_RESPONSES + 2))
    assert {(each.status_code, each.json()[0], each.json()[1]) for each in responses} == {(200, 1, "text")}
    figures = split.figures()
    assert (figures["new"]["failed"], figures["new"]["late"]) == (2, 0)
    assert any(word in figures["said"] for word in ("broken", "row 0", "the actor died"))


def test_canary_that_never_responds_counts_as_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "MIN_TIMEOUT_S", 0.05)
    handle = Handle(None)
    app, split = split_of(handle, app_of(1), monkeypatch)
    assert {each.json()[0] for each in asyncio.run(post(app, MIN_OWN_RESPONSES + 1))} == {1}
    figures = split.figures()
    assert (figures["new"]["failed"], figures["new"]["late"], handle.cancelled) == (1, 1, 1)


def test_request_that_both_versions_reject_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    old = app_of(1)
    app, split = split_of(Handle((400, [], b"no", 0.1)), old, monkeypatch)
    asyncio.run(post(app, MIN_OWN_RESPONSES))
    split._app = app_of(1, 400)
    assert [each.status_code for each in asyncio.run(post(app, 2))] == [400, 400]
    assert split.figures()["new"]["failed"] == 0


def test_too_large_body_is_handled_by_the_old_version(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle((200, [], b"", 0.1))
    app, _ = split_of(handle, app_of(1), monkeypatch)
    asyncio.run(post(app, MIN_OWN_RESPONSES))
    [response] = asyncio.run(post(app, 1, body="x" * 101))
    assert (response.json()[:2], handle.requests) == ([1, "x" * 101], [])


def test_bodies_for_which_there_is_no_memory_are_handled_by_the_old_version(monkeypatch: pytest.MonkeyPatch) -> None:
    app, split = split_of(Handle((200, [], b"[2]", 0.1)), app_of(1), monkeypatch)
    asyncio.run(post(app, MIN_OWN_RESPONSES))
    assert asyncio.run(post(app, 1))[0].json() == [2]
    monkeypatch.setattr(split_module, "HELD_BYTES", 3)
    assert asyncio.run(post(app, 1))[0].json()[0] == 1
    assert split._held == 0


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/one/invocations", True),
        ("POST", "/one/v2/models/m/infer", True),
        ("POST", "/one/v2/models/m/versions/1/infer", False),
        ("GET", "/one/invocations", False),
        ("POST", "/one/ready", False),
    ],
)
def test_only_inference_requests_go_to_the_canary(method: str, path: str, expected: bool) -> None:
    assert is_inference({"type": "http", "method": method, "path": path, "root_path": "/one"}) is expected


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=80), st.lists(st.sampled_from([1, 7, 80]), max_size=5))
def test_body_in_parts_is_complete_for_both_versions(body: bytes, cuts: list[int]) -> None:
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

        complete, again = await split_module._read(receive, 100)
        replayed = [await again() for _ in messages]
        return complete, b"".join(each["body"] for each in replayed)

    assert asyncio.run(read()) == (body, body)
