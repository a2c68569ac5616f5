"""`likewise score --runner ray` on a real cluster: the local runner's output, whichever processes are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.support.batch.job_rows import check, local_rows
from tests.support.batch.running_job import RunningJob
from tests.support.classifier import classifier_bundle
from tests.support.otlp import check_job, collector
from tests.support.processes import command_of, descendants
from tests.support.ray.cluster import RayCluster
from tests.support.spark.bundles import logging_bundle
from tests.support.waiting import until

from likewise import api
from likewise.batch import ScoreOptions
from likewise.core.errors import EngineUnavailable, TargetUnavailable, WrongUsage

pytest_plugins = ("tests.support.ray.fixtures",)
pytestmark = pytest.mark.xdist_group("ray")
ROWS, WINDOW, WORKERS = 1600, 64, 2
SMALL = ["--runner", "ray", "--window", str(WINDOW)]
FEW = ["--conf", f"workers={WORKERS}"]
Victims = Callable[[RayCluster], list[int]]


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> api.Bundle:
    """A pipeline with a compiled classifier of random weights."""
    return api.open_bundle(classifier_bundle(tmp_path_factory.mktemp("text") / "bundle", compiled=True))


def job(
    cluster: RayCluster,
    model: api.Bundle,
    source: Path,
    output: Path,
    *more: str,
    address: str = "",
    conf: Sequence[str] = FEW,
) -> RunningJob:
    options = [*SMALL, *conf, "--master", address or cluster.address, *more]
    return RunningJob(model.path, source, output, options, {**os.environ, **cluster.caller_env})


def workers(cluster: RayCluster) -> list[int]:
    assert cluster.head is not None
    return [pid for pid in descendants(cluster.head.pid) if "ray::BatchWorker" in command_of(pid)]


# for each driver: which process is killed soon after its start, and the fraction of rows at which the driver is killed
ONCE = [(workers, 0.5)]
EVERYWHERE = [(None, 0.1), (workers, 0.5), (workers, 0.9)]


@pytest.mark.parametrize("kills", [ONCE, pytest.param(EVERYWHERE, marks=pytest.mark.long)], ids=["once", "everywhere"])
def test_job_resumes_after_kills_at_any_point(
    ray_cluster: RayCluster, text_model: api.Bundle, tmp_path: Path, kills: Sequence[tuple[Victims | None, float]]
) -> None:
    rows = local_rows(tmp_path, text_model, "no poison", ROWS, WINDOW)
    done: set[str] = set()
    for find, fraction in kills:
        with job(ray_cluster, text_model, rows.source, tmp_path / "out") as running:
            if find is not None:
                os.kill(running.until(lambda: workers(ray_cluster))[0], signal.SIGKILL)
            running.reach(round(fraction * ROWS / WINDOW))
            running.kill()
        assert not running.output.exists()
        until(lambda: not workers(ray_cluster), 60)  # they end with their driver
        assert done <= running.chunks
        done = running.chunks
    with job(ray_cluster, text_model, rows.source, tmp_path / "out") as running:
        os.kill(running.until(lambda: workers(ray_cluster))[0], signal.SIGKILL)
        check(running.report(), running.output, rows, ROWS)


@pytest.mark.long
def test_code_in_a_submitted_job_and_through_the_client_port(ray_cluster: RayCluster, tmp_path: Path) -> None:
    from ray.job_submission import JobStatus, JobSubmissionClient

    model = logging_bundle(tmp_path)
    rows = local_rows(tmp_path, model, "poison", 400, WINDOW)
    with job(
        ray_cluster, model, rows.source, tmp_path / "client", "--trust", address=f"ray://{ray_cluster.client}"
    ) as running:
        check(running.report(), running.output, rows, 400)
    client = JobSubmissionClient(ray_cluster.dashboard)
    words = ["score", str(model.path), str(rows.source), "-o", str(tmp_path / "submitted"), "--trust", *SMALL, *FEW]
    submitted = client.submit_job(entrypoint=" ".join([sys.executable, "-m", "likewise.cli", *words]))
    until(lambda: client.get_job_status(submitted).is_terminal(), 180)
    assert client.get_job_status(submitted) == JobStatus.SUCCEEDED, client.get_job_logs(submitted)[-3000:]
    check(json.loads((tmp_path / "submitted/_likewise.json").read_text()), tmp_path / "submitted", rows, 400)


def test_tasks_export_spans_in_the_trace_of_the_job(
    ray_cluster: RayCluster, text_model: api.Bundle, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("id,text\n" + "".join(f"{row},private {row}\n" for row in range(200)))
    caller = f"00-{'5' * 32}-{'6' * 16}-01"
    with collector() as received:
        variables = {name: value for name, value in received.env.items() if name.startswith("OTEL_")}
        submitted = {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {"env_vars": variables}})}
        env = {**received.env, **ray_cluster.caller_env, **submitted, "TRACEPARENT": caller}
        options = [*SMALL, *FEW, "--master", ray_cluster.address]
        with RunningJob(text_model.path, tmp_path / "in.csv", tmp_path / "out", options, env) as running:
            running.report()
        check_job(received, caller, "ray", 200, "private")


@pytest.mark.long
def test_job_survives_the_loss_of_a_node(ray_cluster: RayCluster, text_model: api.Bundle, tmp_path: Path) -> None:
    rows = local_rows(tmp_path, text_model, "no poison", ROWS, WINDOW)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={ray_cluster.address}", "--block"]
    command += ["--num-cpus=2", "--resources={}", "--object-store-memory=100000000", "--disable-usage-stats"]
    with (tmp_path / "node.log").open("wb") as log:
        node = subprocess.Popen(command, env=ray_cluster.env, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: "Ray runtime started" in (tmp_path / "node.log").read_text(), 60)
        conf = ["--conf", "num_cpus=2", "--conf", "workers=6"]  # more than fit the head node
        with job(ray_cluster, text_model, rows.source, tmp_path / "out", conf=conf) as running:
            lost = running.until(lambda: [p for p in descendants(node.pid) if "ray::BatchWorker" in command_of(p)])
            for pid in (*lost, *descendants(node.pid), node.pid):
                os.kill(pid, signal.SIGKILL)
            check(running.report(), running.output, rows, ROWS)
    finally:
        for pid in (*descendants(node.pid), node.pid):
            os.kill(pid, signal.SIGKILL)
        node.wait()


@pytest.mark.parametrize(
    ("conf", "error", "cause"),
    [
        ({"num_cpu": "1"}, WrongUsage, "--conf num_cpu is unknown"),
        ({"num_cpus": "many"}, WrongUsage, "expected a number above 0"),
        ({"workers": "0"}, WrongUsage, "expected a number above 0"),
        ({"workers": "0.5"}, WrongUsage, "expected a number above 0"),
        ({"num_cpus": "0.00001"}, WrongUsage, "Ray refuses --conf"),
        ({"num_cpus": "100"}, EngineUnavailable, "a worker needs 100 CPU, and no node of the Ray cluster has them"),
        ({"num_gpus": "1"}, EngineUnavailable, "a worker needs 1 CPU, 1 GPU"),
        ({}, TargetUnavailable, "127.0.0.1:9"),
    ],
)
def test_wrong_options_are_refused(
    ray_cluster: RayCluster,
    monkeypatch: pytest.MonkeyPatch,
    text_model: api.Bundle,
    tmp_path: Path,
    conf: dict[str, str],
    error: type[Exception],
    cause: str,
) -> None:
    for name, value in ray_cluster.caller_env.items():
        monkeypatch.setenv(name, value)
    source = tmp_path / "in.csv"
    source.write_text("text\na\n")
    master = ray_cluster.address if conf else "127.0.0.1:9"
    with pytest.raises(error, match=cause):
        api.score(
            text_model,
            source,
            tmp_path / "out",
            options=ScoreOptions(runner="ray", master=master, runner_conf=conf),
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]
