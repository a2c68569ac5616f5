"""The Open Inference Protocol's public client against the server's process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.service import Service, served
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def text(logs: Path) -> Iterator[Service]:
    with served(logs / "text.log", "text") as running:
        yield running


@pytest.fixture(scope="module")
def numbers(logs: Path) -> Iterator[InferenceServerClient]:
    with served(logs / "numbers.log", "numbers") as running, InferenceServerClient(running.authority) as one:
        yield one


@pytest.fixture(scope="module")
def tensors(logs: Path) -> Iterator[InferenceServerClient]:
    with served(logs / "tensor.log", "tensor") as running, InferenceServerClient(running.authority) as one:
        yield one


@pytest.fixture(scope="module")
def client(text: Service) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(text.authority) as one:
        yield one


def tensor(name: str, values: Any, datatype: str, *, binary: bool) -> InferInput:
    array = np.array(values, object if datatype == "BYTES" else None)
    infer_input = InferInput(name, list(array.shape), datatype)
    infer_input.set_data_from_numpy(array, binary_data=binary)
    return infer_input


def texts(*values: str, binary: bool = True) -> list[InferInput]:
    return [tensor("text", list(values), "BYTES", binary=binary)]


def strings(result: InferResult, name: str = "text") -> list[str]:
    """The texts of an output; BYTES are bytes in binary outputs and text in JSON."""
    return [value.decode() if isinstance(value, bytes) else value for value in result.as_numpy(name).tolist()]


def test_health_and_metadata(client: InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("text")
    assert client.is_model_ready("text", "3")
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("text", "4")
    server = client.get_server_metadata()
    assert (server["name"], server["extensions"]) == ("likewise", ["binary_tensor_data"])
    assert client.get_model_metadata("text", "3") == {
        "name": "text",
        "versions": ["3"],
        "platform": "plain/none",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "text", "datatype": "BYTES", "shape": [-1]},
            {"name": "times", "datatype": "INT64", "shape": [-1]},
        ],
    }


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_text_is_transferred_as_json_and_as_bytes(
    client: InferenceServerClient, binary_in: bool, binary_out: bool
) -> None:
    sent = ["tall", "", "naïve — 日本語", 'a "quote"\n', "x" * 100_000]
    requested = [InferRequestedOutput(name, binary_data=binary_out) for name in ("text", "times")]
    result = client.infer("text", texts(*sent, binary=binary_in), outputs=requested)
    assert strings(result) == [one.upper() for one in sent]
    times = result.as_numpy("times")
    assert (times.dtype, times.shape) == (np.int64, (5,))
    assert ("parameters" in result.get_output("text")) is binary_out


def test_all_outputs_are_returned_unless_some_are_requested(client: InferenceServerClient) -> None:
    everything = client.infer("text", texts("a", "b")).get_response()
    assert [one["name"] for one in everything["outputs"]] == ["text", "times"]
    some = client.infer("text", texts("a", "b"), outputs=[InferRequestedOutput("times")])
    assert [one["name"] for one in some.get_response()["outputs"]] == ["times"]
    assert some.as_numpy("text") is None


def test_the_request_id_and_the_model_version_are_returned(client: InferenceServerClient) -> None:
    response = client.infer("text", texts("a"), request_id="job-7", model_version="3").get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("job-7", "text", "3")


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compressed_requests_are_accepted(client: InferenceServerClient, algorithm: str, binary: bool) -> None:
    sent = [f"row {i}" for i in range(300)]
    result = client.infer("text", texts(*sent, binary=binary), request_compression_algorithm=algorithm)
    assert strings(result) == [one.upper() for one in sent]


def test_concurrent_requests(text: Service) -> None:
    with InferenceServerClient(text.authority, concurrency=8) as client:
        pending = [client.async_infer("text", texts(f"n {i}", f"m {i}"), request_id=str(i)) for i in range(200)]
        for i, request in enumerate(pending):
            result = request.get_result()
            assert (strings(result), result.get_response()["id"]) == ([f"N {i}", f"M {i}"], str(i))


@pytest.mark.parametrize(
    ("model", "version", "inputs", "outputs", "status", "message"),
    [
        ("other", "", texts("a"), None, "404", "no model 'other'"),
        ("text", "4", texts("a"), None, "404", "no version '4'"),
        ("text", "", [tensor("txt", ["a"], "BYTES", binary=True)], None, "400", "rename 'txt' to 'text'"),
        ("text", "", [tensor("text", [1], "INT64", binary=True)], None, "400", "row 0, column 'text'"),
        ("text", "", texts("a"), [InferRequestedOutput("label")], "400", "label"),
        ("text", "", texts("good", "bad one"), None, "422", "row 1: the model raised ValueError: 'bad one' is bad"),
    ],
)
def test_errors_have_status_and_message(
    client: InferenceServerClient, model: str, version: str, inputs: Any, outputs: Any, status: str, message: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, inputs, model_version=version, outputs=outputs)
    assert caught.value.status() == status
    assert message in caught.value.message()


@pytest.mark.parametrize("binary", [True, False])
def test_columns_of_numbers(numbers: InferenceServerClient, binary: bool) -> None:
    xs, ns = [0.1, -1e300, 0.0, 2.5], [2**62 + 1, 3, -(2**63), 2]
    inputs = [tensor("x", xs, "FP64", binary=binary), tensor("n", ns, "INT64", binary=binary)]
    for outputs in (None, [InferRequestedOutput(name, binary_data=binary) for name in ("product", "n", "exact")]):
        result = numbers.infer("numbers", inputs, outputs=outputs)
        assert result.as_numpy("product").tolist() == [x * n for x, n in zip(xs, ns, strict=True)]
        assert result.as_numpy("n").tolist() == ns
        assert result.as_numpy("exact").tolist() == [True] * 4
    with pytest.raises(InferenceServerException, match="'n' has 1 rows, but input 'x' has 4"):
        numbers.infer("numbers", [inputs[0], tensor("n", [1], "INT64", binary=binary)])
    described = {one["name"]: one["datatype"] for one in numbers.get_model_metadata("numbers")["inputs"]}
    assert described == {"x": "FP64", "n": "INT64"}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("rows", [1, 5, 20_000])
def test_a_tensor_model(tensors: InferenceServerClient, binary: bool, rows: int) -> None:
    sent = np.arange(rows * 3, dtype=np.float64).reshape(rows, 3) / 7
    infer_input = InferInput("any name", list(sent.shape), "FP64")
    infer_input.set_data_from_numpy(sent, binary_data=binary)
    (output,) = tensors.get_model_metadata("tensor")["outputs"]
    assert (output["datatype"], output["shape"]) == ("FP64", [-1, 3])
    result = tensors.infer("tensor", [infer_input], outputs=[InferRequestedOutput(output["name"], binary_data=binary)])
    assert np.array_equal(result.as_numpy(output["name"]), sent[:, ::-1])
    wrong = InferInput("any name", [rows * 3], "FP64")
    wrong.set_data_from_numpy(sent.reshape(-1), binary_data=binary)
    with pytest.raises(InferenceServerException, match="row 0") as caught:
        tensors.infer("tensor", [wrong])
    assert caught.value.status() == "400"
