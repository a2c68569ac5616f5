"""The OpenAPI document is valid, and its schemas match what the server accepts, for signatures of every kind."""

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from likewise.core.errors import BadRequest
from likewise.core.signature import Signature
from likewise.server import ServedModel
from likewise.server.description.openapi import describe
from likewise.wire import Form, decode
from likewise.wire.oip import decode_infer

pytestmark = pytest.mark.slow

Json = dict[str, Any]

KINDS = ("string", "integer", "long", "float", "double", "boolean", "datetime", "binary")
NOT_IN_SCHEMA = (
    "differ in length",  # JSON Schema cannot compare lengths: of the columns in `inputs`,
    ".index",  # of `index` and `data`,
    "values for ",  # of `columns` and the rows of `data`,
    "lists of equal length",  # and of the rows of a tensor of any width
    "of type integer, got null",  # nor can it say that optional integers are in all rows or in none: where one is
    "of type long, got null",  # missing, pandas would make floats of the others
    "-02-29",  # a pattern does not know leap years
    "double holds exactly",  # nor a range which integers a float holds exactly: all up to 2**53 or 2**24, some beyond
    "bits holds exactly",
    ".0 (a number)",  # 5.0 is an integer in JSON Schema, and not one as a parameter, as in MLflow
)


def signature_of(inputs: list[Json] | None, params: list[Json] | None = None) -> Signature:
    parts = {"inputs": inputs, "params": params, "outputs": [{"type": "string", "name": "label"}]}
    return Signature.parse({name: json.dumps(part) for name, part in parts.items() if part is not None})


def tensor(*shape: int, dtype: str = "float64") -> Json:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}}


NESTED = (
    {"type": "array", "items": {"type": "long"}},
    {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
    {"type": "object", "properties": {"a": {"type": "long"}, "b": {"type": "string", "required": False}}},
    {"type": "map", "values": {"type": "double"}},
    {"type": "any"},
)
SIGNATURES: dict[str, Signature] = {
    "none": Signature(),
    **{f"one {kind}": signature_of([{"type": kind, "name": "v"}]) for kind in KINDS},
    **{f"one unnamed {kind}": signature_of([{"type": kind}]) for kind in KINDS},
    **{f"nested {i}": signature_of([{**spec, "name": "v"}]) for i, spec in enumerate(NESTED)},
    **{f"unnamed nested {i}": signature_of([spec]) for i, spec in enumerate(NESTED)},
    **{
        f"nested {i} of two": signature_of([{**spec, "name": "v"}, {"type": "string", "name": "w"}])
        for i, spec in enumerate(NESTED)
    },
    "every type": signature_of([{"type": kind, "name": f"of {kind}"} for kind in KINDS]),
    "every type, unnamed": signature_of([{"type": kind} for kind in KINDS]),
    "optional": signature_of(
        [{"type": "string", "name": "text"}, *({"type": k, "name": k, "required": False} for k in KINDS)]
    ),
    "all optional": signature_of([{"type": "long", "name": "n", "required": False}]),
    "odd names": signature_of([{"type": "string", "name": 'a "quoted", name'}, {"type": "long", "name": "<b>/$x"}]),
    "a chat": signature_of([{"type": "array", "items": {"type": "any"}, "name": "messages"}]),
    "a prompt": signature_of([{"type": "string", "name": "prompt"}]),
    "a tensor": signature_of([tensor(-1, 3)]),
    "a tensor of rows": signature_of([tensor(-1)]),
    "a tensor of images": signature_of([tensor(-1, 2, 2, dtype="uint8")]),
    "a tensor of any width": signature_of([tensor(-1, -1)]),
    "a tensor of four rows": signature_of([tensor(4, 1, dtype="bool")]),
    "a tensor of text": signature_of([tensor(-1, 2, dtype="str")]),
    "a tensor of objects": signature_of([tensor(-1, dtype="object")]),
    "tensors": signature_of([{**tensor(-1, 2), "name": "a"}, {**tensor(-1, dtype="int32"), "name": "b"}]),
    "a huge tensor": signature_of([tensor(-1, 224, 224, 3)]),
    "params": signature_of(
        [{"type": "string", "name": "text"}],
        [
            {"name": "temperature", "type": "double", "default": 0.5, "shape": None},
            {"name": "stop", "type": "string", "default": ["."], "shape": [-1]},
            {"name": "n", "type": "long", "default": 1, "shape": None},
            {"name": "by", "type": "datetime", "default": "2026-01-31T00:00:00", "shape": None},
        ],
    ),
}  # fmt: skip

TWO_REQUIRED = signature_of(
    [
        {"type": "string", "name": "text"},
        {"type": "long", "name": "count"},
        {"type": "double", "name": "weight", "required": False},
    ]
)

every_signature = pytest.mark.parametrize("signature", SIGNATURES.values(), ids=SIGNATURES)


def document_of(
    signature: Signature, *, auth: bool = False, example: bytes | None = None, name: str = "models:/m/3"
) -> Json:
    model = ServedModel(name=name, digest="sha256:abc", signature=signature, example=example, version="3")
    return describe(model, url="http://test/", auth=auth, body_limit=1000)


def operations(document: Json) -> list[tuple[str, str, Json]]:
    return [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    ]


def content_of(document: Json, path: str = "/invocations") -> dict[str, Json]:
    content: dict[str, Json] = document["paths"][path]["post"]["requestBody"]["content"]
    return content


def body_of(content_type: str, value: object) -> bytes:
    return value.encode() if content_type == "text/csv" and isinstance(value, str) else json.dumps(value).encode()


def with_components(document: Json, schema: Json) -> Json:
    """The schema together with the components that it refers to."""
    return {**schema, "components": {"schemas": document["components"]["schemas"]}}


@every_signature
def test_the_document_is_valid_openapi(signature: Signature) -> None:
    document = document_of(signature, auth=signature.params is not None)
    validate(document)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


@every_signature
def test_the_document_has_only_what_client_generators_read(signature: Signature) -> None:
    """They refuse documents with `false` as the schema of a property, or with a list as a constant."""
    pending: list[object] = [document_of(signature)]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            properties = node.get("properties")
            assert not isinstance(properties, dict) or not any(isinstance(each, bool) for each in properties.values())
            assert not isinstance(node.get("const"), list | dict)
            assert node.get("type") not in ("array", ["array", "null"]) or "items" in node or "prefixItems" in node
        pending += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


@every_signature
def test_examples_are_accepted_and_match_their_schemas(signature: Signature) -> None:
    document = document_of(signature)
    shown = 0
    for content_type, media in content_of(document).items():
        for name, example in media.get("examples", {}).items():
            call = decode(body_of(content_type, example["value"]), content_type, signature)
            assert len(call.table)
            assert (call.form is Form.LEGACY) == ("MLflow 1" in name or "format=" in content_type)
            Draft202012Validator(with_components(document, media["schema"])).validate(example["value"])
            shown += 1
    huge = signature is SIGNATURES["a huge tensor"]
    assert shown == 0 if huge else shown >= 2


@every_signature
def test_the_infer_example_is_accepted_and_matches_its_schema(signature: Signature) -> None:
    media = content_of(document_of(signature), "/v2/models/{model}/infer")["application/json"]
    for example in media.get("examples", {}).values():
        assert len(decode_infer(json.dumps(example["value"]).encode(), None, signature).table)
        Draft202012Validator(with_components(document_of(signature), media["schema"])).validate(example["value"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "signature", [pytest.param(signature, id=name) for name, signature in SIGNATURES.items() if "huge" not in name]
)
def test_bodies_that_match_the_schema_are_accepted(signature: Signature) -> None:
    document = document_of(signature)
    for content_type in list(content_of(document)):
        untyped = content_type == "text/csv" and "pattern" not in document["components"]["schemas"]["Csv"]
        if untyped or "parquet" in content_type:  # the schema does not restrict these texts or bytes
            content_of(document).pop(content_type)

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=schemathesis.openapi.from_dict(document)["/invocations"]["POST"].as_strategy())
    def every_body_is_accepted(case: schemathesis.Case) -> None:
        try:
            decode(body_of(case.media_type or "", case.body), case.media_type, signature)
        except BadRequest as error:
            if not any(text in error.cause for text in NOT_IN_SCHEMA):
                raise

    every_body_is_accepted()


@pytest.mark.parametrize(
    ("kind", "values", "beyond"),
    [
        ("string", ["a", "", None, 5, 1.5, True, ["a"], {}], []),
        ("long", [1, -(2**63), 2**63 - 1, 2**63, 5.0, 1.5, "x", "", None, True, [1]], ["7", "-8999999999999999999"]),
        ("integer", [2**31 - 1, 2**31, -(2**31), "1_0", None], ["1999999999"]),
        ("double", [1, 1.5, 1e300, "abc", "1_0", "", None, True, [1], {}], ["2.5", "-1e10"]),
        ("float", [1, "x", None], ["1"]),
        ("boolean", [True, False, 2, -1, 0.5, "no", None, []], [0, 1, "true", "FALSE"]),
        ("datetime", ["2026-11-22", "2026-11-22T09:30:00+02:00", "2026-13-1", "2026-01-31 25:00", "", 1e30, True], [5]),
        ("binary", ["aGk=", "aGk", "!", "", 5, None], []),
        ("any", [1, None, {"a": [1]}, [], "x"], []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("required", [True, False])
def test_a_value_matches_the_schema_if_it_is_accepted(
    kind: str, values: list[object], beyond: list[object], required: bool
) -> None:
    """The values `beyond` are accepted although they do not match."""
    signature = signature_of([{"type": kind, "name": "v", "required": required}])
    validator = body_validator(signature)
    for value, differs in [*((value, False) for value in values), *((value, True) for value in beyond)]:
        for body in ([{"v": value}], {"dataframe_split": {"columns": ["v"], "data": [[value]]}}):
            expected = (True, False) if differs else (accepted(body, signature),) * 2
            assert (accepted(body, signature), validator.is_valid(body)) == expected, body


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        "text",
        [{"count": 1}],
        [{"text": "a"}],
        [{"text": "a", "count": 1}, {"text": "b"}],
        [{"text": "a", "count": 1, "weight": None, "other": 5}],
        [{"text": "a", "count": 1}, 5],
        {"dataframe_records": [{"text": "a", "count": 1}], "inputs": []},
        {"dataframe_records": [{"text": "a", "count": 1}], "input": "x"},
        {"dataframe_records": [{"text": "a", "count": 1}], "else": 1},
        {"inputs": {"text": ["a"], "count": [1]}},
        {"inputs": {"text": ["a"]}},
        {"inputs": ["a"]},
        {"inputs": "a"},
        {"dataframe_split": {"columns": ["text", "count", "weight"], "data": [["a", 1, None]]}},
        {"dataframe_split": {"columns": ["text", "count"], "data": [["a"]]}},
        {"dataframe_split": {"columns": ["text", "count"], "data": [{"text": "a"}]}},
        {"dataframe_split": {"columns": ["text", "count"], "data": ["a"]}},
        {"dataframe_split": {"columns": ["text"], "data": [["a"]]}},
        {"dataframe_split": {"columns": ["text", "count"], "data": [["a", 1]], "rows": 1}},
        {"dataframe_split": {"data": [["a", 1]]}},
        {"dataframe_split": [["a", 1]]},
        {"columns": ["text", "count", "weight"], "data": [["a", 1, 1.5]], "index": [7]},
        {"columns": ["text", "count"], "data": [["a", "x"]]},
    ],
)
def test_a_body_matches_the_schema_if_it_is_accepted(body: object) -> None:
    assert body_validator(TWO_REQUIRED).is_valid(body) == accepted(body, TWO_REQUIRED)


@pytest.mark.parametrize(
    "body",
    [
        [{"text": "a", "count": 1}, {"count": 2}],
        {"inputs": {"text": "a", "count": 1}},
        {"dataframe_split": {"columns": ["text", "count"], "data": [["a", 1]]}},
        {"dataframe_split": {"columns": ["text", "count"], "data": [{"count": 1}, {"text": "a", "count": 2}]}},
    ],
)
def test_a_body_is_accepted_though_it_does_not_match(body: object) -> None:
    """As the descriptions in the document say; a schema of all variants would make clients hard to use."""
    assert accepted(body, TWO_REQUIRED)
    assert not body_validator(TWO_REQUIRED).is_valid(body)


def body_validator(signature: Signature) -> Draft202012Validator:
    document = document_of(signature)
    return Draft202012Validator(with_components(document, content_of(document)["application/json"]["schema"]))


def accepted(body: object, signature: Signature) -> bool:
    try:
        decode(json.dumps(body).encode(), None, signature)
    except BadRequest:
        return False
    return True


@pytest.mark.parametrize(
    "params",
    [{"n": 1}, {"n": 1.5}, {"n": "1"}, {"n": True}, {"n": None}, {"other": 1}, [], {"stop": "."}, {"stop": ["a"]},
     {"temperature": 1}, {"temperature": "1"}],
)  # fmt: skip
def test_params_match_the_schema_exactly_if_they_are_accepted(params: object) -> None:
    signature = SIGNATURES["params"]
    body = {"inputs": ["a"], "params": params}
    assert body_validator(signature).is_valid(body) == accepted(body, signature)


def test_params_show_their_defaults() -> None:
    properties = document_of(SIGNATURES["params"])["components"]["schemas"]["Params"]["properties"]
    assert {name: schema["default"] for name, schema in properties.items()} == {
        "temperature": 0.5,
        "stop": ["."],
        "n": 1,
        "by": "2026-01-31T00:00:00",
    }


def test_the_models_own_example_is_shown() -> None:
    body = {"dataframe_split": {"columns": ["v"], "data": [[f"row {i}"] for i in range(9)]}}
    document = document_of(SIGNATURES["one string"], example=json.dumps(body).encode())
    examples = content_of(document)["application/json"]["examples"]
    assert examples["dataframe_records"]["value"] == {"dataframe_records": [{"v": "row 0"}, {"v": "row 1"}]}


@pytest.mark.parametrize("example", [b"{", b'{"inputs": [5]}', json.dumps({"inputs": ["x" * 9000]}).encode()])
def test_an_invalid_or_too_long_example_is_replaced(example: bytes) -> None:
    document = document_of(SIGNATURES["one string"], example=example)
    value = content_of(document)["application/json"]["examples"]["dataframe_records"]["value"]
    assert value == {"dataframe_records": [{"v": "some text"}]}


def test_an_example_without_any_known_column_is_replaced() -> None:
    body = {"dataframe_split": {"columns": ["other"], "data": [[1]]}}
    document = document_of(SIGNATURES["all optional"], example=json.dumps(body).encode())
    examples = content_of(document)["application/json"]["examples"]
    assert examples["dataframe_records"]["value"] == {"dataframe_records": [{"n": 1}]}


ROUTES = {
    *(
        "/invocations",
        "/ping",
        "/health",
        "/ready",
        "/version",
        "/metrics",
        "/openapi.json",
        "/bundle.json",
        "/docs",
        "/",
        "/v2",
    ),
    *("/v2/health/live", "/v2/health/ready", "/v2/models/{model}", "/v2/models/{model}/ready"),
    *("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}"),
    *("/v2/models/{model}/versions/{version}/ready", "/v2/models/{model}/versions/{version}/infer"),
}


def test_every_route_is_documented_with_the_common_response_headers() -> None:
    document = document_of(SIGNATURES["one string"])
    assert set(document["paths"]) == ROUTES
    for _, _, operation in operations(document):
        for response in operation["responses"].values():
            if "$ref" in response:
                response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
            assert {"X-Likewise-Bundle", "X-Likewise-Engine", "X-Request-Id"} <= set(response["headers"])
    expected = {"200", "400", "405", "408", "413", "415", "422", "500", "503", "504"}
    assert set(document["paths"]["/invocations"]["post"]["responses"]) == expected
    assert "Retry-After" in document["components"]["responses"]["Unavailable"]["headers"]


def test_a_model_without_a_version_has_no_versioned_paths() -> None:
    document = describe(ServedModel(name="m", digest="d"), url="http://test", auth=False, body_limit=1)
    validate(document)
    assert set(document["paths"]) == {path for path in ROUTES if "{version}" not in path}


def test_all_routes_except_health_checks_and_the_page_require_a_token() -> None:
    document = document_of(SIGNATURES["one string"], auth=True)
    assert document["security"] == [{"bearer": []}, {"basic": []}]
    free = {path for path, _, operation in operations(document) if operation.get("security") == []}
    assert free == {"/ping", "/health", "/ready", "/v2/health/live", "/v2/health/ready", "/"}
    for path, _, operation in operations(document):
        assert ("401" in operation["responses"]) == (path not in free)
    assert "securitySchemes" not in document_of(SIGNATURES["one string"])["components"]


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("models:/reviews/6", "reviews"),
        ("models:/reviews@champion", "reviews"),
        ("models:/m-12ab", "m-12ab"),
        ("runs:/0a1b/model", "model"),
        ("s3://bucket/a/my model/", "my-model"),
        ("/srv/bundles/größe.bundle", "gr-e.bundle"),
        ("C:\\models\\m", "m"),
        ("<upper>", "upper"),
        ("..", "model"),
        ("", "model"),
        ("models:/", "model"),
    ],
)
def test_the_short_name_is_valid_in_a_path(name: str, short: str) -> None:
    assert ServedModel(name=name, digest="d").model_name == short
