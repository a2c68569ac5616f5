"""`--capture` in real servers: what is written, when, how much of it, and that `verify` and pandas read it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.cli import call
from tests.support.models import upper_bundle
from tests.support.processes import LIKEWISE, running
from tests.support.service import Service, client_of, ready, served, started

TRACE = "0af7651916cd43dd8448eb211c80319c"


def captured(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder) if any(folder.glob("*.parquet")) else pd.DataFrame()


def stop(service: Service, how: signal.Signals = signal.SIGTERM) -> None:
    service.process.send_signal(how)
    service.process.wait(60)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What a server with the model `kinds` captured of concurrent requests of all sorts."""
    folder = tmp_path_factory.mktemp("capture")
    with served(folder / "log", "kinds", capture=str(folder / "files")) as service:
        asyncio.run(_requests(service))
        stop(service)
    return captured(folder / "files")


async def _requests(service: Service) -> None:
    async with client_of(service) as client:

        async def post(number: int) -> None:
            rows = [{"text": f"{number}-{row}", "of long": row, "of datetime": "2026-01-02"} for row in range(3)]
            headers = {"X-Request-Id": f"many-{number}", "Authorization": "Bearer not-to-be-kept"}
            body = {"dataframe_records": rows, "params": {"many": number}}
            assert (await client.post("/invocations", json=body, headers=headers)).status_code == 200

        await asyncio.gather(*map(post, range(40)))
        await client.post(
            "/invocations", json={"dataframe_records": [{"text": "ä\ud7ff"}]}, headers={"X-Request-Id": "plain"}
        )
        await client.post("/invocations", content="{", headers={"X-Request-Id": "unreadable"})
        await client.post(
            "/invocations", json={"dataframe_records": [{"text": "x"}] * 3000}, headers={"X-Request-Id": "large"}
        )
        infer = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["tensor"]}]}
        await client.post("/v2/models/kinds/infer", json=infer, headers={"X-Request-Id": "v2"})


def test_each_row_is_written_with_its_request(everything: pd.DataFrame) -> None:
    rows = everything[everything.likewise_request_id == "many-7"].sort_values("likewise_row")
    assert list(rows.text) == ["7-0", "7-1", "7-2"]
    assert list(rows["of long"]) == [0, 1, 2]
    assert list(rows["of datetime"].unique()) == [pd.Timestamp("2026-01-02")]
    assert [json.loads(each)["values"][0] for each in rows.predictions] == ["7-0", "7-1", "7-2"]
    assert {json.loads(each)["many"] for each in rows.likewise_params} == {7}
    assert set(rows.likewise_missing.iloc[0]) >= {"of string", "of binary"}
    facts = rows.iloc[0]
    assert (facts.likewise_route, facts.likewise_status) == ("/invocations", 200)
    assert (facts.likewise_bundle, facts.likewise_engine) == ("sha256:abc", "plain/none")
    assert 0 < facts.likewise_seconds < 60
    assert abs(facts.likewise_time - pd.Timestamp.now("UTC")) < pd.Timedelta(minutes=10)


def test_all_requests_with_a_readable_body_are_captured_without_headers(everything: pd.DataFrame) -> None:
    counts = everything.likewise_request_id.value_counts()
    assert counts["large"] == 3000
    assert counts["v2"] == counts["plain"] == 1
    assert sum(name.startswith("many-") for name in counts.index) == 40
    assert "unreadable" not in counts
    assert "not-to-be-kept" not in everything.to_csv()
    assert everything[everything.likewise_request_id == "v2"].likewise_route.item() == "/v2/models/{model}/infer"


def test_errors_are_captured_with_their_codes(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    with served(tmp_path / "log", "upper", capture=str(folder)) as service:
        texts = {"inputs": ["fine", "bad row"]}
        refused = httpx.post(f"{service.url}/invocations", json=texts, headers={"X-Request-Id": "bad"})
        assert refused.status_code == 422
        stop(service)
    rows = captured(folder).sort_values("likewise_row")
    assert list(rows.likewise_status) == [422, 422]
    assert json.loads(rows.predictions.iloc[0]) == {"text": "FINE"}
    assert pd.isna(rows.predictions.iloc[1])
    assert rows.likewise_error_code.iloc[1] == "MODEL_RAISED"


def test_the_sample_is_chosen_by_request_id_and_two_processes_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    options = {"capture": str(folder), "capture_rate": 0.3}
    chosen: list[set[str]] = []
    with served(tmp_path / "1", "upper", **options) as one, served(tmp_path / "2", "upper", **options) as two:
        for service in (one, two):
            with httpx.Client(base_url=service.url) as client:
                for number in range(100):
                    headers = {"traceparent": f"00-{number + 1:032x}-b7ad6b7169203331-01"}
                    client.post("/invocations", json={"inputs": [f"{service.url} {number}"]}, headers=headers)
        stop(one)
        stop(two)
    for service in (one, two):
        rows = captured(folder)
        chosen.append(set(rows[rows.text.str.startswith(service.url)].likewise_request_id))
    assert chosen[0] == chosen[1]
    assert 15 < len(chosen[0]) < 45
    assert len(list(folder.iterdir())) == 2


def test_full_files_are_written_at_once_within_the_size_and_a_kill_leaves_no_half_file(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    limit = 300_000
    with started(tmp_path / "log", "upper", capture=str(folder), capture_bytes=limit) as process:
        service = ready(process)
        with httpx.Client(base_url=service.url, timeout=60) as client:
            for _ in range(30):
                texts = [os.urandom(100).hex() for _ in range(500)]
                client.post("/invocations", json={"inputs": texts})

            def accounted() -> float:
                return service.metric("likewise_captured_rows_total") + service.metric("likewise_capture_dropped_total")

            while accounted() < 14_000:  # the last rows wait for their file
                pass
        assert service.metric("likewise_capture_dropped_total") == 0
        stop(service, signal.SIGKILL)
    files = list(folder.iterdir())
    assert files
    assert sum(path.stat().st_size for path in files) <= limit
    assert all(len(pq.read_table(path)) >= 500 for path in files)
    assert not [path for path in files if path.name.startswith(".")]


def test_a_folder_that_vanishes_costs_rows_and_no_request(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    log = tmp_path / "log"
    with served(log, "upper", capture=str(folder), access_log=False) as service:
        folder.rmdir()
        for number in range(2):
            texts = {"inputs": [f"{number} {index}" for index in range(10_000)]}
            assert httpx.post(f"{service.url}/invocations", json=texts, timeout=60).status_code == 200
            while service.metric("likewise_capture_dropped_total") < 10_000 * (number + 1):
                pass
        stop(service)
    assert log.read_text().count("captured requests are lost") == 1


def test_a_folder_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with started(tmp_path / "log", "upper", capture=str(tmp_path / "file")) as process:
        error: Any = process.event("error")
        assert error["code"] == "OUTPUT_REFUSED"
        assert "--capture" in error["remedy"]


# --- verify ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, str]]:
    """A bundle, what `likewise serve` captured, and the URL of a server that still runs."""
    folder = tmp_path_factory.mktemp("verify")
    bundle = upper_bundle(folder / "bundle", lengths=True)
    options = ("--trust", "--in-process", "-p", "0", "--capture", str(folder / "files"), "--json")
    for again in (False, True):
        with running([*LIKEWISE, "serve", str(bundle), *options], folder / "log") as process:
            url = str(process.document()["url"])
            if again:
                yield bundle, folder / "files", url
                return
            for texts in (["one", "Two"], ["drei"], ["ok", "bad row"]):
                httpx.post(f"{url}/invocations", json={"inputs": texts})
            process.process.send_signal(signal.SIGINT)
            process.process.wait(60)


def test_verify_compares_with_what_was_captured(upper: tuple[Path, Path, str]) -> None:
    bundle, files, url = upper
    for golden in (files, next(files.glob("*.parquet"))):
        words = ("verify", bundle, "--against", url, "--golden", golden, "--trust", "--json")
        done = call(*map(str, words))
        assert done.returncode == 0, done.stderr
        parity = json.loads(done.stdout)
        expected, other = parity["places"]
        assert (parity["rows"], expected["where"], expected["same"]) == (5, "expected", 4)
        assert (other["same"], other["refused"]) == (5, 1)


def test_verify_fails_on_a_changed_prediction_and_jobs_take_the_rows(
    upper: tuple[Path, Path, str], tmp_path: Path
) -> None:
    bundle, files, _ = upper
    table = pq.read_table(files)
    texts = table.column("predictions").to_pylist()
    at = texts.index('{"text":"DREI","length":4}')
    changed = [*texts[:at], '{"text":"DREI","length":5}', *texts[at + 1 :]]
    index = table.schema.get_field_index("predictions")
    changed_table = table.set_column(index, table.schema.field(index), pa.array(changed))
    pq.write_table(changed_table, tmp_path / "changed.parquet")
    words = ("verify", bundle, "--golden", tmp_path / "changed.parquet", "--against", "local", "--trust", "--json")
    done = call(*map(str, words))
    assert done.returncode == 3, done.stderr
    expected, local = json.loads(done.stdout)["places"]
    assert (expected["differ"], expected["same"]) == (1, 3)
    assert local["same"] == 5
