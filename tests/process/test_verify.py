"""`likewise verify` with all backends that run here, with faults planted in each, and as a step of CI."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array
from tests.support.cli import call
from tests.support.models import save_code, seal, upper_bundle
from tests.support.processes import likewise

from likewise import deployments, open_bundle
from likewise.parity import VerifyOptions, verify


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {mark: upper_bundle(folder / mark, f"{mark}:") for mark in ("one", "two")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a new user."""
    folder = tmp_path_factory.mktemp("home")
    homes = {f"LIKEWISE_{name}_HOME": str(folder / name.lower()) for name in ("DATA", "CACHE", "CONFIG")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in homes.items():
            patch.setenv(name, value)
        yield {**os.environ, **homes}


@pytest.fixture(scope="module")
def one(
    home: Mapping[str, str], models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """URL and token file of the deployment `one` on the target local."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("# of this test\nkept-to-itself\n")
    options = {"token_file": str(token)}
    receipt = deployments.deploy(models["one"], "local", "one", options, trust=True)
    yield str(receipt.output("url")), token
    deployments.delete("one")


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    path = tmp_path / "golden.csv"
    path.write_text('id,text\n1,fine\n2,bad row\n3,\n4,"a, b"\n')
    return path


def verified(home: Mapping[str, str], *words: object, code: int | None = 0) -> dict[str, Any]:
    """The JSON output of `likewise verify … --json`, which must exit with `code`, if that is not None."""
    done = call("verify", *map(str, words), "--json", env=home)
    assert code in (done.returncode, None), done.stderr[-3000:] + done.stdout[-3000:]
    return dict(json.loads(done.stdout))


def test_all_backends_agree_and_refuse_the_same_row(
    home: dict[str, str], models: dict[str, Path], one: tuple[str, Path], golden: Path, tmp_path: Path
) -> None:
    address, token = one
    scored = tmp_path / "scored.csv"
    likewise("score", models["one"], golden, "-o", scored, "--trust", env=home)
    backends = [
        *("one", "one@local", address, f"{address}/invocations", "local", "spark", "mlflow", "mlflow-serve"),
        str(scored),
    ]
    against = [word for where in backends for word in ("--against", where)]
    options = ["--golden", golden, "--token-file", token, "--trust", "--json"]
    # in a separate process, so that Spark does not stay in this one
    parity = json.loads(likewise("verify", models["one"], *against, *options, env=home).stdout)
    assert parity["agrees"]
    assert [each["where"] for each in parity["places"]] == backends
    for each in parity["places"]:
        counts = {name: each[name] for name in ("rows", "same", "close", "differ", "refused", "missing")}
        assert counts == {"rows": 4, "same": 4, "close": 0, "differ": 0, "refused": 1, "missing": 0}, each
        assert each["bundle"] == (None if each["where"].startswith("mlflow") else parity["bundle"]), each
        assert (each["p99_ms"] is None) == (each["where"] in ("local", "spark", str(scored)))
        assert each["proves"] == "0 of 4 rows differ: at most 52.71 % differ, at 95 % confidence"


def test_different_model_exits_with_code_3(
    home: dict[str, str], models: dict[str, Path], one: tuple[str, Path], golden: Path
) -> None:
    parity = verified(home, models["two"], "--against", "one", "--golden", golden, "--trust", code=3)
    (backend,) = parity["places"]
    assert (parity["agrees"], backend["differ"], backend["refused"]) == (False, 3, 1)
    assert backend["bundle"] != parity["bundle"]
    assert backend["first"][0] == {
        "row": 0, "given": '{"text": "fine"}', "path": "prediction", "here": "two:FINE", "there": "one:FINE",
        "step": None,
    }  # fmt: skip
    plain = call("verify", models["two"], "--against", "one", "--trust", "--golden", golden, env=home)
    assert plain.returncode == 3
    counts = "1 same (1 refused), 3 differ"
    header, row = (line.split("\t")[:5] for line in plain.stdout.splitlines())
    assert header == ["backend", "verdict", "rows", "at most differ", "bundle"]
    assert row == ["one", "DIFFERS", counts, "98.73 %", f"{backend['bundle'][:14]}…"]
    assert "one, row 0, prediction: two:FINE ≠ one:FINE" in plain.stderr
    assert 'input: {"text": "fine"}' in plain.stderr
    assert "3 of 4 rows differ: at most 98.73 % differ, at 95 % confidence" in plain.stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--against", "nobody"], "NOT_DEPLOYED", "nobody"),
        (["--against", "onee"], "NOT_DEPLOYED", "did you mean 'one'?"),
        (["--against", "mlfow"], "NOT_DEPLOYED", "did you mean 'mlflow'?"),
        (["--against", "gone.parquet"], "INPUT_NOT_FOUND", "gone.parquet"),
        (["--against", "./gone"], "INPUT_NOT_FOUND", "./gone"),
        (["--against", "ftp://host"], "WRONG_USAGE", "ftp://host"),
        (["--against", "one", "--report", "r.txt"], "WRONG_USAGE", ".html"),
        (["--against", "one", "--junit", "gone/r.xml"], "OUTPUT_REFUSED", "gone"),
    ],
)
def test_mistake_is_reported_before_anything_is_loaded(
    home: dict[str, str], one: tuple[str, Path], golden: Path, words: list[str], code: str, text: str
) -> None:
    # there is no such model either
    error = verified(home, "models:/none/1", *words, "--golden", golden, code=2 if code == "WRONG_USAGE" else 1)[
        "error"
    ]
    assert error["code"] == code
    assert text in json.dumps(error, ensure_ascii=False)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--against", "one", "--golden", "gone.csv"], "INPUT_NOT_FOUND", "gone.csv"),
        (["--against", "one", "--expected", "right"], "INPUT_INVALID", "right"),
        ([], "WRONG_USAGE", "--against"),
    ],
)
def test_comparison_that_cannot_start_is_an_error(
    home: dict[str, str],
    models: dict[str, Path],
    one: tuple[str, Path],
    golden: Path,
    words: list[str],
    code: str,
    text: str,
) -> None:
    arguments = [*words, *([] if "--golden" in words else ["--golden", str(golden)])]
    error = verified(home, models["one"], *arguments, "--trust", code=2 if code == "WRONG_USAGE" else 1)["error"]
    assert error["code"] == code
    assert text in json.dumps(error)


def test_failing_backend_is_a_row_of_the_table(
    home: dict[str, str], models: dict[str, Path], one: tuple[str, Path], golden: Path, tmp_path: Path
) -> None:
    against = ["--against", "http://127.0.0.1:9", "--against", one[0], "--against", "one"]
    files = ["--report", tmp_path / "r.json", "--junit", tmp_path / "r.xml"]
    parity = verified(home, models["one"], *against, *files, "--golden", golden, "--trust", code=1)
    assert [each["verdict"] for each in parity["places"]] == ["failed", "failed", "agrees"]
    assert [each["missing"] for each in parity["places"]] == [4, 4, 0]
    assert "127.0.0.1:9" in parity["places"][0]["error"]["cause"]
    assert "responded with status 401" in parity["places"][1]["error"]["cause"]
    assert json.loads((tmp_path / "r.json").read_text()) == parity
    assert b'errors="2"' in (tmp_path / "r.xml").read_bytes()
    plain = call("verify", models["one"], *against, "--trust", "--golden", golden, env=home)
    assert plain.returncode == 1
    assert [line.split("\t")[1] for line in plain.stdout.splitlines()[1:]] == ["FAILED", "FAILED", "agrees"]
    assert "4 of 4 rows have no answer" in plain.stderr


def test_plain_mlflow_needs_trust(home: dict[str, str], models: dict[str, Path], golden: Path) -> None:
    error = verified(home, models["one"], "--against", "mlflow", "--golden", golden, code=1)["error"]
    assert error["code"] == "CODE_NOT_TRUSTED"


def test_model_without_example_needs_a_golden_set(home: dict[str, str], models: dict[str, Path]) -> None:
    error = verified(home, models["one"], "--against", "local", "--trust", code=2)["error"]
    assert "--golden" in error["remedy"]


def test_expected_answers_are_compared(home: dict[str, str], models: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"text": "a", "expected": "one:A"}, {"text": "b"}, {"text": "c", "expected": "one:X"}]
    path = tmp_path / "golden.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parity = verified(home, models["one"], "--golden", path, "--trust", code=3)
    [place] = parity["places"]
    assert (place["where"], place["rows"], place["same"], place["differ"]) == ("expected", 2, 1, 1)
    assert (place["first"][0]["row"], place["first"][0]["there"]) == (2, "one:X")
    assert verified(home, models["one"], "--golden", path, "--allow", "50", "--trust")["agrees"]


def test_model_that_refuses_all_rows_is_an_error(home: dict[str, str], models: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "golden.csv"
    path.write_text("text\nbad a\nbad b\n")
    error = verified(home, models["one"], "--against", "local", "--golden", path, "--trust", code=1)["error"]
    assert (error["code"], "refuses all 2 rows" in error["cause"]) == ("MODEL_FAILED", True)


def test_tolerance_of_an_unknown_part_is_refused(home: dict[str, str], models: dict[str, Path], golden: Path) -> None:
    words = ["--against", "local", "--golden", golden, "--tolerance-of", "scor=0", "--trust"]
    error = verified(home, models["one"], *words, code=2)["error"]
    assert "scor" in error["cause"]


def test_plain_mlflow_does_not_change_the_bundle(
    home: dict[str, str], models: dict[str, Path], golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {name: value for name, value in home.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    for backend in ("mlflow", "mlflow-serve"):
        likewise("verify", models["one"], "--against", backend, "--golden", golden, "--trust", env=env)
    open_bundle(models["one"])


def test_model_that_plain_mlflow_cannot_load_is_a_failed_backend(home: dict[str, str], tmp_path: Path) -> None:
    loading = "assert 'mlflow_process' not in __import__('sys').argv[0]"
    bundle = upper_bundle(tmp_path / "bundle", loading=loading)
    path = tmp_path / "golden.jsonl"
    path.write_text("".join(json.dumps({"text": f"{row}" * 5_000}) + "\n" for row in range(30)))
    against = ["--against", "mlflow", "--against", "mlflow-serve", "--against", "local"]
    places = verified(home, bundle, *against, "--golden", path, "--trust", code=1)["places"]
    assert [each["verdict"] for each in places] == ["failed", "failed", "agrees"]
    assert all("AssertionError" in each["error"]["cause"] for each in places[:2])


def test_array_column_named_input_is_no_agent(home: dict[str, str], tmp_path: Path) -> None:
    code = TYPED.replace("[None if v is pd.NaT else v for v in row]", "list(map(list, row))")
    schema = Schema([ColSpec(Array(DataType.double), "input")])
    save_code(tmp_path / "bundle" / "model", code, signature=ModelSignature(schema))
    bundle = seal(tmp_path / "bundle", row_wise=True).path
    path = tmp_path / "golden.jsonl"
    path.write_text('{"input": [1.0, 2.0], "expected": "[[1.0, 2.0]]"}\n{"input": [3.0]}\n')
    against = ["--against", "mlflow", "--against", "local"]
    places = verified(home, bundle, *against, "--golden", path, "--trust")["places"]
    assert [each["same"] for each in places] == [1, 2, 2]


# --- planted faults --------------------------------------------------------------------------------------------------


def test_one_changed_value_in_10_000_rows_is_found(
    home: dict[str, str], models: dict[str, Path], tmp_path: Path
) -> None:
    source, scored = tmp_path / "in.parquet", tmp_path / "scored.parquet"
    pd.DataFrame({"text": [f"text {row}" for row in range(10_000)]}).to_parquet(source)
    likewise("score", models["one"], source, "-o", scored, "--trust", env=home)
    assert verified(home, models["one"], "--against", scored, "--trust")["agrees"]
    frame = pd.read_parquet(scored)
    frame.loc[7_777, "predictions"] = "one:TEXT 7778"
    frame.to_parquet(scored)
    [place] = verified(home, models["one"], "--against", scored, "--trust", code=3)["places"]
    assert (place["rows"], place["differ"], place["bundle"]) == (10_000, 1, open_bundle(models["one"]).digest)
    [difference] = place["differences"]
    assert (difference["row"], difference["here"], difference["there"]) == (7_777, "one:TEXT 7777", "one:TEXT 7778")
    sampled = verified(home, models["one"], "--against", scored, "--bound", "1", "--seed", "5", "--trust", code=None)
    assert (sampled["rows"], sampled["seed"]) == (299, 5)
    assert sampled["bound"] <= (0.0101 if sampled["agrees"] else 0.02)


@pytest.mark.long
def test_predictions_of_a_stale_bundle_on_spark_are_found(
    home: dict[str, str], models: dict[str, Path], golden: Path, tmp_path: Path
) -> None:
    scored = tmp_path / "scored"
    likewise("score", models["two"], golden, "-o", scored, "--runner", "spark", "--trust", env=home)
    [place] = verified(home, models["one"], "--against", scored, "--trust", code=3)["places"]
    assert (place["rows"], place["differ"], place["bundle"]) == (3, 3, open_bundle(models["two"]).digest)


def test_changed_engine_file_is_named(
    home: dict[str, str], models: dict[str, Path], golden: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(models["one"], changed)
    code = next(changed.rglob("upper.py"))
    code.write_text(code.read_text() + "\n")
    error = verified(home, changed, "--against", "local", "--golden", golden, "--trust", code=1)["error"]
    assert error["code"] == "BUNDLE_TAMPERED"
    assert "upper.py" in error["cause"]


def test_slow_backend_fails(home: dict[str, str], models: dict[str, Path], golden: Path, one: tuple[str, Path]) -> None:
    limits = {"0.001": ("slow", 1), "60000": ("agrees", 0)}
    for limit, (verdict, code) in limits.items():
        parity = verified(
            home, models["one"], "--against", "one", "--against", "local", "--golden", golden, "--max-p99", limit,
            "--trust", code=code,
        )  # fmt: skip
        assert [each["verdict"] for each in parity["places"]] == [verdict, "agrees"]


class _Dying(BaseHTTPRequestHandler):
    """Forwards requests, and closes the connection from the third on."""

    left, address, token = 2, "", ""

    def do_POST(self) -> None:
        type(self).left -= 1
        if self.left < 0:
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        response = httpx.post(f"{self.address}/invocations", content=body, headers=headers)
        self.send_response(response.status_code)
        self.send_header("Content-Length", str(len(response.content)))
        self.end_headers()
        self.wfile.write(response.content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_backend_that_dies_is_compared_up_to_then(
    home: dict[str, str], models: dict[str, Path], one: tuple[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "golden.csv"
    path.write_text("text\n" + "".join(f"text {row}\n" for row in range(400)))
    _Dying.address, _Dying.token = one[0], one[1].read_text().split("\n")[1]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Dying)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        against = f"http://127.0.0.1:{server.server_port}"
        [place] = verified(home, models["one"], "--against", against, "--golden", path, "--trust", code=1)["places"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert (place["verdict"], place["differ"]) == ("failed", 0)
    assert place["rows"] + place["missing"] == 400
    assert 0 < place["rows"] <= 128
    assert place["error"]["code"] == "TARGET_UNAVAILABLE"


# --- values ----------------------------------------------------------------------------------------------------------

TYPED = """
import mlflow, pandas as pd
class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        rows = model_input.itertuples(index=False, name=None)
        return [repr([None if v is pd.NaT else v for v in row]) for row in rows]
mlflow.models.set_model(Model())
"""


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that returns the representation of the values that it gets."""
    folder = tmp_path_factory.mktemp("typed")
    columns = [
        ColSpec("integer", "small"), ColSpec("long", "whole"), ColSpec("boolean", "flag", required=False),
        ColSpec("datetime", "at", required=False),
    ]  # fmt: skip
    save_code(folder / "model", TYPED, signature=ModelSignature(Schema(columns)))
    return seal(folder, row_wise=True).path


def golden_parquet(folder: Path, **columns: pa.Array) -> Path:
    good = {
        "small": pa.array([1, 1], pa.int64()), "whole": pa.array([1.0, 2.0]), "flag": pa.array([True, False]),
        "at": pa.array([0, 1], pa.timestamp("us", "UTC")),
    }  # fmt: skip
    path = folder / "golden.parquet"
    pq.write_table(pa.table(good | columns), path)
    return path


@pytest.mark.parametrize(
    ("columns", "refused"),
    [
        ({}, 0),
        ({"small": pa.array([1, 2**40])}, 1),  # the server of MLflow answers with 0
        ({"whole": pa.array([1.5, 2.0])}, 1),  # it answers with 1
        ({"flag": pa.array([None, True])}, 0),
    ],
)
def test_rows_keep_their_types(
    home: dict[str, str], typed: Path, tmp_path: Path, columns: dict[str, pa.Array], refused: int
) -> None:
    golden = golden_parquet(tmp_path, **columns)
    against = ["--against", "mlflow", "--against", "local"]
    parity = verified(home, typed, *against, "--golden", golden, "--tolerance", "0", "--trust")
    assert [(each["same"], each["refused"]) for each in parity["places"]] == [(2, refused)] * 2


@pytest.mark.parametrize(
    ("columns", "here", "there"),
    [
        ({"flag": pa.array([None, True])}, "None", "False"),
        ({"small": pa.array([2**40, 1])}, "refused", "[0, "),
        ({"whole": pa.array([1.5, 2.0])}, "refused", "[1, 1"),
    ],
)
def test_values_that_mlflows_server_changes_are_found(
    home: dict[str, str], typed: Path, tmp_path: Path, columns: dict[str, pa.Array], here: str, there: str
) -> None:
    columns["at"] = pa.nulls(2, pa.timestamp("us"))
    golden = golden_parquet(tmp_path, **columns)
    parity = verified(
        home, typed, "--against", "mlflow-serve", "--golden", golden, "--tolerance", "0", "--trust", code=3
    )
    [difference] = parity["places"][0]["differences"]
    assert difference["row"] == 0
    assert here in difference["here"]
    assert there in difference["there"]


AGENT = """
import mlflow
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentResponse
class Model(ResponsesAgent):
    def predict(self, request):
        text = request.input[-1].content
        return ResponsesAgentResponse(output=[self.create_text_output_item(text.upper(), "1")])
mlflow.models.set_model(Model())
"""
UNSIGNED = """
import mlflow
class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return (model_input["a"] + model_input["b"]).tolist()
mlflow.models.set_model(Model())
"""


def test_agents_are_compared(home: dict[str, str], tmp_path: Path) -> None:
    save_code(tmp_path / "bundle" / "model", AGENT)
    bundle = seal(tmp_path / "bundle", row_wise=False).path
    golden = tmp_path / "golden.jsonl"
    documents = [{"input": [{"role": "user", "content": text}]} for text in ("hello", "more")]
    golden.write_text("".join(json.dumps(each) + "\n" for each in documents))
    against = ["--against", "mlflow", "--against", "mlflow-serve", "--against", "local"]
    parity = verified(home, bundle, *against, "--golden", golden, "--trust")
    assert [each["same"] for each in parity["places"]] == [2, 2, 2]


def test_models_without_a_signature_are_compared(home: dict[str, str], tmp_path: Path) -> None:
    save_code(tmp_path / "bundle" / "model", UNSIGNED)
    bundle = seal(tmp_path / "bundle", row_wise=True).path
    golden = tmp_path / "golden.csv"
    golden.write_text("a,b\n1,2\n10,20\n")
    against = ["--against", "local", "--against", "mlflow", "--against", "mlflow-serve"]
    parity = verified(home, bundle, *against, "--golden", golden, "--trust")
    assert [each["same"] for each in parity["places"]] == [2, 2, 2]


def test_result_in_python(home: dict[str, str], models: dict[str, Path], one: tuple[str, Path], golden: Path) -> None:
    seen = set()
    parity = verify(
        models["two"], ["one"], options=VerifyOptions(golden=str(golden)), trust=True,
        progress=lambda where, progress: seen.add((where, progress.rows, progress.total)),
    )  # fmt: skip
    assert not parity.agrees
    assert round(parity.bound, 3) == 0.987
    assert list(parity.differences["here"]) == ["two:FINE", "two:", "two:A, B"]
    assert "two:FINE" in parity._repr_html_()
    assert {("this machine", 4, 4), ("one", 4, 4)} <= seen
