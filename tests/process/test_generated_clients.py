"""Clients that openapi-python-client and openapi-generator make of `/openapi.json` call the server."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.support.generators import generator_client, python_client
from tests.support.service import Service, served

PARAMS = {"temperature": 0.5, "stop": ["."]}
UNNAMED = re.compile(r"^(body|\w*any_?of|\w*_type_|\w*_not\b|\w*_inner)", re.MULTILINE)  # generated for lack of a name
NESTED = re.compile("row_map|split_data")  # of the types in a signature, which have no names there
UNSUPPORTED = {"text/csv", "application/vnd.apache.parquet"}  # content types that openapi-python-client leaves out


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def kinds(logs: Path) -> Iterator[Service]:
    with served(logs / "kinds.log", "kinds") as running:
        yield running


def client_for(url: str, name: str, folder: Path) -> tuple[ModuleType, Any]:
    """The generated package, and a client of it; nothing was left out but UNSUPPORTED content types."""
    output = python_client(url, folder / name)
    assert set(re.findall(r"Unsupported content type (\S+)", output)) <= UNSUPPORTED
    assert not re.search(r"Unable|Invalid|Error|cannot", output, re.IGNORECASE), output
    names = [path.stem for path in (folder / name / "models").glob("*.py")]
    assert not [one for one in names if UNNAMED.search(one) and not NESTED.match(one)]
    package = importlib.import_module(name)
    return importlib.import_module(f"{name}.models"), package.Client(base_url=url)


def operation(package: str, path: str) -> Any:
    return importlib.import_module(f"{package}.api.{path}")


def test_openapi_python_client(kinds: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    m, client = client_for(kinds.url, "kinds_client", tmp_path)

    def call(path: str, *words: str, **options: Any) -> Any:
        return operation("kinds_client", path).sync(*words, client=client, **options)

    rows = [m.Row(text="a", of_long=5)]
    echoed = {"columns": ["text", "of long"], "values": ["a", 5], "params": {**PARAMS, "many": 1}}
    split = m.Split(columns=["text", "of long"], data=[["a", 5]])
    columns = m.Columns(text=["a"], of_long=[5])
    for body in (
        m.DataframeRecords(dataframe_records=rows),
        m.DataframeSplit(dataframe_split=split),
        m.Inputs(inputs=[m.AsciiRow(text="a", of_long=5)]),
        m.Inputs(inputs=columns),
        m.Instances(instances=columns),
    ):
        assert call("predictions.predict", body=body) == {"predictions": [echoed]}
    for bare in (rows, split):
        assert call("predictions.predict", body=bare) == [echoed]
    with_params = m.DataframeRecords(dataframe_records=rows, params=m.Params(many=2))
    answer = call("predictions.predict", body=with_params)
    assert answer["predictions"][0]["params"] == {**PARAMS, "many": 2}

    error = call("predictions.predict", body=m.Inputs(inputs=m.Columns(text=["a"], of_long=[1, 2])))
    assert isinstance(error, m.Error)
    assert (error.error_code, bool(error.remedy)) == ("BAD_REQUEST", True)

    text = m.InputTensor(name="text", shape=[1], datatype=m.Datatype.BYTES, data=["a"])
    for operation_path, path in (("v2.infer", ["kinds"]), ("v2.infer_of_version", ["kinds", "3"])):
        response = call(operation_path, *path, body=m.InferenceRequest(inputs=[text]))
        assert isinstance(response, m.InferenceResponse)
        assert "a" in next(output for output in response.outputs if output.name == "values").data
    assert isinstance(call("v2.model_metadata", "other"), m.Error)
    assert call("v2.model_metadata", "kinds").inputs[0].name == "text"
    assert call("v2.server_live").live
    assert call("v2.model_ready", "kinds").ready
    assert call("v2.server_metadata").name == "likewise"
    assert call("pages.openapi")["openapi"].startswith("3.1")
    assert "likewise_requests_total" in call("health.metrics")
    for path in ("health.ready", "health.ping", "health.version"):
        assert operation("kinds_client", path).sync_detailed(client=client).status_code == 200


def test_openapi_python_client_reads_typed_predictions_and_sends_a_token(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    tokens = tmp_path / "tokens"
    with served(logs / "numbers.log", "numbers") as running:
        m, _ = client_for(running.url, "numbers_client", tmp_path)
    tokens.write_text("one\n")
    with served(logs / "tokens.log", "numbers", token_file=str(tokens)) as running:
        predict = operation("numbers_client", "predictions.predict")
        package = importlib.import_module("numbers_client")
        body = m.DataframeRecords(dataframe_records=[m.Row(x=1.5, n=2), m.Row(x=None, n=3)])
        answer = predict.sync(client=package.AuthenticatedClient(base_url=running.url, token="one"), body=body)
        assert [(one.product, one.n, one.exact) for one in answer.predictions] == [(3.0, 2, True), (None, 3, False)]
        refused = predict.sync_detailed(client=package.Client(base_url=running.url), body=body)
        assert refused.status_code == 401


@pytest.mark.long
@pytest.mark.parametrize("model", ["nested", "tensor"])
def test_openapi_python_client_for_other_models(
    model: str, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    with served(logs / f"{model}.log", model) as running:
        m, client = client_for(running.url, f"{model}_client", tmp_path)
        if model == "tensor":
            inputs: Any = [[1.0, 2.0, 3.0]]
        else:
            inputs = [m.Row(list_=[1], object_=m.RowObject(a=1, b="b"))]
        predict = operation(f"{model}_client", "predictions.predict")
        assert predict.sync_detailed(client=client, body=m.Inputs(inputs=inputs)).status_code == 200


@pytest.mark.long
def test_openapi_generator(kinds: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = generator_client(kinds.url, tmp_path, "generated_client")
    assert "ERROR" not in output
    monkeypatch.syspath_prepend(tmp_path)
    package: Any = importlib.import_module("generated_client")
    assert not [name for name in dir(package) if re.search(r"AnyOf|Not$|Inner", name)]
    client = package.ApiClient(package.Configuration(host=kinds.url))
    predictions, v2, health = package.PredictionsApi(client), package.V2Api(client), package.HealthApi(client)

    row, columns = package.Row(text="a"), package.Columns(text=["a"])
    echoed = {"columns": ["text"], "values": ["a"], "params": {**PARAMS, "many": 1}}
    for body in (
        package.DataframeRecords(dataframe_records=[row]),
        package.Inputs(inputs=package.Values(columns)),
        package.Instances(instances=package.Values([package.AsciiRow(text="a")])),
    ):
        assert predictions.predict(package.InvocationRequest(body)) == {"predictions": [echoed]}
    assert predictions.predict(package.InvocationRequest([row])) == [echoed]
    body = package.DataframeRecords(dataframe_records=[row], params=package.Params(many=2))
    answer = predictions.predict(package.InvocationRequest(body))
    assert answer["predictions"][0]["params"] == {**PARAMS, "many": 2}

    uneven = package.Inputs(inputs=package.Values(package.Columns(text=["a"], of_long=[1, 2])))
    with pytest.raises(package.ApiException) as raised:
        predictions.predict(package.InvocationRequest(uneven))
    assert isinstance(raised.value.data, package.Error)
    assert raised.value.data.error_code == "BAD_REQUEST"

    text = package.InputTensor(name="text", shape=[1], datatype=package.Datatype.BYTES, data=["a"])
    assert v2.infer("kinds", package.InferenceRequest(inputs=[text])).model_name == "kinds"
    assert v2.model_metadata("kinds").inputs[0].name == "text"
    assert v2.server_live().live
    assert health.ready_with_http_info().status_code == 200
    assert "likewise_requests_total" in health.metrics()
