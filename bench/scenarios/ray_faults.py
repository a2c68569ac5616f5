"""A deployment on Ray under load: killed replicas, many updates, and faulty versions."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from math import nan

from bench import ray_place
from bench.engines import is_own, requests
from bench.generator import Outcome, closed, go
from bench.model import Subject, upper
from bench.options import Options
from bench.verdict import Check, Verdict, good, quantile, statuses, worst
from likewise import deployments
from likewise.core.errors import DeployFailed

KILLS, UPDATES = 2, 20
FAULTS = ("raises", "5x slower", "never ready")  # of `bench.upper_model`
CALL_S = 0.02  # duration of a call of the model, so that a killed replica has requests in flight
SLOWER = 3.0  # factor of the old version's median latency above which a response counts as slow
CONNECTIONS = 8
BEFORE_S, AFTER_S = 2.0, 2.0
PATIENCE_S = 60.0
OPTIONS = {"route_prefix": "/", "ray_actor_options": {"num_cpus": 0.5}}
SHARE = 10  # percent of requests that the canary gets


class _Load:
    """A closed loop of clients in a separate thread, which runs until `stop`; its clock is `time.monotonic`."""

    def __init__(self, port: int) -> None:
        self._stop = threading.Event()
        self.outcomes: list[Outcome] = []
        self._thread = threading.Thread(target=self._run, args=(port,))
        self._thread.start()

    def _run(self, port: int) -> None:
        each = takewhile(lambda _: not self._stop.is_set(), requests())
        self.outcomes = go(closed(port, each, CONNECTIONS, seconds=3600, patience=PATIENCE_S))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def _load(port: int) -> Iterator[_Load]:
    load = _Load(port)
    try:
        time.sleep(BEFORE_S)
        yield load
        time.sleep(AFTER_S)
    finally:
        load.stop()


@contextmanager
def _cluster() -> Iterator[int]:
    """Run Ray with Serve in this process; yields its port."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIKEWISE_DATA_HOME"] = folder
        import ray

        ray_place.start(port)
        try:
            yield port
        finally:
            ray.shutdown()
            del os.environ["RAY_ADDRESS"]


@contextmanager
def _deployed(model: Subject, **options: object) -> Iterator[None]:
    deployments.deploy(model.bundle, "ray", ray_place.NAME, {**OPTIONS, **options}, trust=True)
    try:
        yield
    finally:
        deployments.delete(ray_place.NAME)


def kill(options: Options) -> Verdict:
    """`kill -9` of one replica of one, then of one of two: seconds to the next success, and failed requests."""
    kills = []
    with _cluster() as port:
        for replicas in (1, 2):
            with _deployed(upper(CALL_S), num_replicas=replicas):
                kills += [_kill_one(port, replicas) for _ in range(options.rounds or KILLS)]
    outcomes = [one for _, _, each in kills for one in each]
    later = [one for at, _, each in kills for one in each if one.sent > at and one.status != 200]
    return Verdict(
        "ray-kill",
        {
            "kills": len(kills),
            "statuses": statuses(outcomes),
            "failed": [sum(one.status != 200 for one in each) for _, _, each in kills],
            "next_good_s": [round(_next_good_s(at, each), 2) for at, _, each in kills],
            "restored_s": [round(restored, 1) for _, restored, _ in kills],
        },
        [
            Check("slowest next success, s", worst(_next_good_s(at, each) for at, _, each in kills), "at most", 10),
            Check("slowest success, s", worst(one.wait for one in good(outcomes)), "at most", 10),
            Check("failed though sent after the kill", len(later), "at most", 0),
            Check(
                "failed per kill",
                max(sum(one.status != 200 for one in each) for _, _, each in kills),
                "at most",
                CONNECTIONS,
            ),
        ],
    )


def _kill_one(port: int, replicas: int) -> tuple[float, float, list[Outcome]]:
    """Time of the kill, seconds until the number of replicas is restored, and the outcomes."""
    with _load(port) as load:
        victim = _pids()[0]
        at = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        while len(now := _pids()) < replicas or victim in now:
            time.sleep(0.1)
        restored = time.monotonic() - at
    print(f"  {replicas} replicas: {statuses(load.outcomes)}, all back after {restored:.1f} s", flush=True)
    return at, restored, load.outcomes


def _pids() -> list[int]:
    replicas = deployments.status(ray_place.NAME)[1].details["replicas"]
    return [each["pid"] for each in replicas if each["state"] == "RUNNING"]


def _next_good_s(at: float, outcomes: list[Outcome]) -> float:
    return min((one.ended - at for one in good(outcomes) if one.sent > at), default=nan)


def updates(options: Options) -> Verdict:
    """Alternating updates between two versions: failed requests and swapped responses."""
    versions, seconds = (upper(0.001), upper(0.0)), []
    with _cluster() as port, _deployed(versions[1]), _load(port) as load:
        for number in range(options.rounds or UPDATES):
            started_at = time.monotonic()
            deployments.update(ray_place.NAME, versions[number % 2].bundle, trust=True)
            seconds.append(time.monotonic() - started_at)
            print(f"  update {number + 1}: {seconds[-1]:.1f} s", flush=True)
    return Verdict(
        "ray-updates",
        {
            "updates": len(seconds),
            "requests": len(load.outcomes),
            "statuses": statuses(load.outcomes),
            "update_s": {"p50": round(quantile(seconds, 0.5), 1), "max": round(worst(seconds), 1)},
            "slowest_s": round(worst(one.wait for one in load.outcomes), 2),
        },
        [Check("failed or swapped", sum(not is_own(one) for one in load.outcomes), "at most", 0)],
    )


def rollback(options: Options) -> Verdict:  # noqa: ARG001
    """Canary updates with default options to faulty versions: seconds to the rollback, and effects on clients."""
    effects: dict[str, dict[str, object]] = {}
    checks = []
    with _cluster() as port, _deployed(upper(CALL_S)):
        for fault in FAULTS:
            bad = upper(CALL_S, fault)
            with _load(port) as load:
                at = time.monotonic()
                message = _update_that_fails(bad)
                seconds = time.monotonic() - at
            old = quantile([one.wait for one in load.outcomes if one.ended < at], 0.5)
            slow = sum(one.wait > SLOWER * old for one in load.outcomes) / len(load.outcomes)
            failed = sum(not is_own(one) for one in load.outcomes)
            effects[fault] = {
                "s": round(seconds, 1),
                "requests": len(load.outcomes),
                "slow_percent": round(100 * slow, 2),
            }
            print(f"  {fault}: {effects[fault]}; {message[:300]}", flush=True)
            checks += [
                Check(f"{fault}: rolled back after, s", seconds, "at most", 60),
                Check(f"{fault}: failed", failed, "at most", 0),
                Check(f"{fault}: slow, percent", 100 * slow, "at most", SHARE),
            ]
    return Verdict("ray-rollback", effects, checks)


def _update_that_fails(bad: Subject) -> str:
    try:
        deployments.update(ray_place.NAME, bad.bundle, {"canary": SHARE}, trust=True)
    except DeployFailed as error:
        return str(error)
    raise SystemExit("the bad version was promoted")
