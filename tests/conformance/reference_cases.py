"""Models and requests that MLflow's scoring server answers, for the differential test."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property


def columns(*specs: ColSpec | TensorSpec, params: list[ParamSpec] | None = None) -> ModelSignature:
    return ModelSignature(Schema(list(specs)), params=ParamSchema(params) if params else None)


def tensor(dtype: str, *shape: int, name: str | None = None) -> TensorSpec:
    return TensorSpec(np.dtype(dtype), shape, name)


MESSAGE = Object([Property("role", DataType.string), Property("content", DataType.string, required=False)])
PARAMS = [
    ParamSpec("threshold", DataType.double, 0.5),
    ParamSpec("top", DataType.long, 3),
    ParamSpec("small", DataType.integer, 1),
    ParamSpec("ratio", DataType.float, 0.25),
    ParamSpec("name", DataType.string, None),
    ParamSpec("on", DataType.boolean, False),
    ParamSpec("since", DataType.datetime, np.datetime64("2026-01-01T00:00:00")),
    ParamSpec("labels", DataType.string, ["a"], shape=(-1,)),
    ParamSpec("weights", DataType.double, [0.5], shape=(-1,)),
    ParamSpec("thing", Object([Property("a", DataType.long)]), {"a": 1}),
]
SIGNATURES: dict[str, ModelSignature | None] = {
    "text": columns(ColSpec("string", "text")),
    "numbers": columns(
        *(ColSpec(k, k) for k in ("long", "integer", "double", "float", "boolean")),
    ),
    "optional": columns(
        ColSpec("string", "text"),
        *(ColSpec(k, k, required=False) for k in ("string", "double", "long", "boolean", "datetime")),
    ),
    "moment": columns(ColSpec("datetime", "when")),
    "binary": columns(ColSpec("binary", "raw")),
    "array": columns(ColSpec(Array(DataType.long), "v")),
    "texts": columns(ColSpec(Array(DataType.string), "v"), ColSpec("string", "text")),
    "deep": columns(ColSpec(Array(Array(DataType.double)), "v")),
    "object": columns(
        ColSpec(
            Object(
                [
                    Property("a", DataType.long),
                    Property("b", Array(DataType.string), required=False),
                    Property("c", Object([Property("d", DataType.double)]), required=False),
                ]
            ),
            "v",
        )
    ),
    "map": columns(ColSpec(Map(DataType.long), "v")),
    "any": columns(ColSpec(AnyType(), "v")),
    "unnamed long": columns(ColSpec("long")),
    "unnamed text": columns(ColSpec("string")),
    "unnamed object": columns(ColSpec(MESSAGE)),
    "unnamed pair": columns(ColSpec("long"), ColSpec("long")),
    "vector": columns(tensor("int64", -1)),
    "matrix": columns(tensor("float64", -1, 2)),
    "cube": columns(tensor("float32", -1, 2, 2)),
    "bytes tensor": columns(tensor("str", -1)),
    "fixed": columns(tensor("float64", 2, 2)),
    "open": columns(tensor("float64", -1, -1, 2)),
    "named": columns(tensor("float64", -1, 2, name="m"), tensor("int32", -1, name="n")),
    "none": None,
    "params": columns(ColSpec("string", "text"), params=PARAMS),
    "prompt": columns(ColSpec("string", "prompt"), ColSpec("double", "temperature", required=False)),
    "chat": columns(ColSpec(Array(MESSAGE), "messages"), ColSpec("double", "temperature", required=False)),
    "chat params": columns(ColSpec(Array(MESSAGE), "messages"), params=PARAMS[:2]),
    "embedding": columns(ColSpec("string", "input")),
}
HINTS = {
    "hint text": "list[str]",
    "hint long": "list[int]",
    "hint dict": "list[dict[str, int]]",
    "hint lists": "list[list[float]]",
    "hint float": "list[float]",
    "hint moment": "list[datetime.datetime]",
    "hint bytes": "list[bytes]",
    "hint thing": "list[Thing]",
}
RETURNS = {
    "frame": "pd.DataFrame({'n': [1, 2], 'x': [0.5, np.nan], 't': ['a', None]})",
    "series": "pd.Series([1, 2], name='n')",
    "nameless series": "pd.Series(['a', 'b'])",
    "index": "pd.DataFrame({'n': [1]}, index=['x'])",
    "array": "np.array([[1.5, np.inf], [np.nan, 2]])",
    "float32": "np.array([0.1], dtype='float32')",
    "numpy scalars": "[np.int64(1), np.float64(0.5), np.bool_(True), {'a': np.float32(0.5)}]",
    "list": "[1, 2.5, 'ß', None, True, [], {}]",
    "dict": "{'a': np.array([1, 2]), 'b': [1], 'c': 'x'}",
    "scalar": "5",
    "text": "'one'",
    "moment": "[datetime.datetime(2026, 1, 2, 3, 4, 5, 6), datetime.date(2026, 1, 2), pd.Timestamp('2026-01-02')]",
    "frame of moments": "pd.DataFrame({'when': pd.to_datetime(['2026-01-02T03:04:05'])})",
    "wide": "[2**63, 2**64, -(2**70), 10**30]",
    "deep": "__import__('functools').reduce(lambda v, _: [v], range(400), 1)",
    "nothing": "None",
    "no rows": "pd.DataFrame({'n': []})",
    "tuple": "(1, 'a')",
    "model": "[Thing(a=1)]",
    "surrogate": "['\\ud800']",
    "bytes": "[b'hi']",
    "moments": "np.array(['2026-01-02'], dtype='datetime64[ns]')",
}
ODD = ("surrogate", "bytes", "moments")  # answered in another way, see DIFFERENT
# Models for language: the text of an answer is what the model received.
AGENTS = {
    "chat model": """
from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage
class M(mlflow.pyfunc.ChatModel):
    def predict(self, context, messages, params):
        text = f"{[each.to_dict() for each in messages]} {sorted(params.to_dict().items(), key=str)}"
        choice = ChatChoice(index=0, message=ChatMessage(role="assistant", content=text))
        return ChatCompletionResponse(choices=[choice], id="x", created=1, model="m")
""",
    "chat agent": """
from mlflow.types.agent import ChatAgentMessage, ChatAgentResponse
class M(mlflow.pyfunc.ChatAgent):
    def predict(self, messages, context=None, custom_inputs=None):
        text = f"{[each.model_dump(exclude={'id'}) for each in messages]} {context!r} {custom_inputs}"
        return ChatAgentResponse(messages=[ChatAgentMessage(role="assistant", id="1", content=text)])
""",
    "responses agent": """
from mlflow.types.responses import ResponsesAgentResponse
class M(mlflow.pyfunc.ResponsesAgent):
    def predict(self, request):
        item = self.create_text_output_item(text=repr(request.model_dump(exclude_none=True)), id="m")
        return ResponsesAgentResponse(id="r", created_at=1.0, output=[item])
""",
}
USER = [{"role": "user", "content": "hi"}]
TOOLS = [
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "name": "f", "content": "5", "tool_call_id": "1"},
]  # fmt: skip
REQUESTS: list[tuple[str, Any]] = [
    *((agent, {"messages": USER, **more}) for agent in ("chat model", "chat agent") for more in (
        {}, {"messages": [*USER, *TOOLS]}, {"custom_inputs": {"a": 1}}, {"unknown": 1}, {"messages": []},
        {"stream": True}, {"context": {"conversation_id": "c", "user_id": "u"}})),
    ("chat model", {"messages": USER, "temperature": 0.5, "max_tokens": 5, "stop": ["x"], "top_p": 1}),
    *((agent, body) for agent in ("chat model", "chat agent") for body in (
        {"inputs": {"messages": USER}}, {"instances": {"messages": USER}},
        {"dataframe_records": [{"messages": USER}]})),
    *(("responses agent", {"input": USER, **more}) for more in (
        {}, {"temperature": 0.5, "custom_inputs": {"a": 1}}, {"context": {"conversation_id": "c"}}, {"unknown": 1},
        {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}]})),
]  # fmt: skip
MODEL = """
import typing
class Thing(pydantic.BaseModel):
    a: int
    b: str = "x"
    c: typing.Optional[float] = None
class M(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input{hint}, params=None):
        return {answer}
mlflow.models.set_model(M())
"""


def split(names: list[str] | None, *rows: Any) -> dict[str, Any]:
    return {"dataframe_split": {"columns": names, "data": list(rows)} if names else {"data": list(rows)}}


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


NUMBERS = {"long": 1, "integer": 2, "double": 0.5, "float": 0.25, "boolean": True}
CHAT = [{"role": "user", "content": "hi"}, {"role": "system"}]
SAME: list[tuple[str, Any]] = [
    *(("text", {form: rows}) for form in ("dataframe_records", "inputs", "instances") for rows in (
        [{"text": "a"}], [{"text": "ß\u0000😀"}, {"text": ""}], [{"text": "a", "more": 1}])),
    ("text", split(["text"], ["a"], ["b"])),
    ("text", split(["more", "text"], [1, "a"], [None, "b"])),
    ("text", split(["text"])),
    ("text", {"dataframe_split": {"columns": ["text"], "index": [7], "data": [["a"]]}}),
    ("text", {"dataframe_split": {"columns": ["text"], "data": ["a", "b"]}}),
    ("text", split(["text"], [None], ["a"])),
    ("text", split(["text"], [None])),
    ("text", {"inputs": {"text": ["a", "b"]}}),
    ("text", {"inputs": {"text": "a"}}),
    ("text", {"inputs": ["a", "b"]}),
    ("text", {"instances": ["a", "b"]}),
    ("text", {"instances": {"text": ["a"]}}),
    ("text", {"inputs": []}),
    ("text", {"instances": [], "signature_name": "x"}),
    ("text", {"inputs": ["a"], "params": {"x": 1}}),
    *(("numbers", {form: [NUMBERS]}) for form in ("dataframe_records", "inputs", "instances")),
    ("numbers", {"dataframe_records": [{**NUMBERS, "long": -(2**63), "integer": -(2**31), "double": 1e308}]}),
    ("numbers", {"dataframe_records": [{**NUMBERS, "long": 2**63 - 1, "integer": 2**31 - 1, "double": 2**53}]}),
    ("numbers", {"dataframe_records": [{**NUMBERS, "double": None, "float": None}]}),
    ("numbers", {"dataframe_records": [{**NUMBERS, "float": 0.1, "double": 1, "long": 1.0}]}),
    ("numbers", {"dataframe_records": [{**NUMBERS, "long": "5", "double": "2.5", "boolean": 0}]}),
    ("numbers", {"inputs": {k: [v, v] for k, v in NUMBERS.items()}}),
    ("numbers", b'{"dataframe_records": [{"long": 1, "integer": 2, "double": NaN, "float": 1, "boolean": false}]}'),
    *(("optional", {form: [{"text": "a"}]}) for form in ("dataframe_records", "inputs", "instances")),
    *(("optional", {"dataframe_records": [{"text": "a", k: v}]}) for k, v in {
        "string": None, "double": None, "datetime": None}.items()),
    ("optional", {"dataframe_records": [{"text": "a", "string": "b"}, {"text": "c"}]}),
    ("optional", {"dataframe_records": [{"text": "a", "double": 1.5}, {"text": "c"}]}),
    ("optional", {"dataframe_records": [{"text": "a", "datetime": "2026-01-02"}, {"text": "c"}]}),
    ("optional", {"inputs": [{"text": "a", "long": 1}]}),
    ("moment", {"dataframe_records": [{"when": "2026-01-02T03:04:05.000006"}]}),
    ("moment", {"dataframe_records": [{"when": "2026-01-02"}]}),
    ("moment", {"dataframe_records": [{"when": "1677-10-01"}]}),
    ("moment", {"dataframe_records": [{"when": 1_000_000_000}]}),
    ("moment", {"inputs": [{"when": "2026-01-02T03:04:05"}]}),
    ("moment", {"inputs": ["2026-01-02T03:04:05", "2026-01-02T03:04:05.5"]}),
    ("binary", {"dataframe_records": [{"raw": b64(b"\xff\x00hi")}]}),
    ("binary", {"inputs": {"raw": ["hi", "you"]}}),
    ("binary", {"inputs": ["hi"]}),
    *(("array", b) for b in ({"inputs": {"v": [1, 2]}}, {"inputs": [{"v": [1, 2]}, {"v": [3]}]}, {"inputs": [1, 2]},
        split(["v"], [[1, 2]], [[3]]), {"dataframe_records": [{"v": [1]}]}, {"dataframe_records": [{"v": []}]})),
    ("texts", {"inputs": {"v": ["a", "b"], "text": "c"}}),
    ("texts", {"inputs": [{"v": ["a"], "text": "c"}]}),
    ("texts", split(["text", "v"], ["c", ["a", "ß"]], ["d", []])),
    ("deep", split(["v"], [[[0.5], []]])),
    ("deep", {"inputs": [{"v": [[1.5, 2.0], [3.0, 4.0]]}]}),
    ("unnamed object", split(["x"], [CHAT[0]], [CHAT[1]])),
    ("object", {"inputs": [{"v": {"a": 1}}]}),
    ("object", {"inputs": {"v": {"a": 1, "b": ["x"], "c": {"d": 0.5}}}}),
    ("object", {"dataframe_records": [{"v": {"a": 1, "b": ["x"]}}, {"v": {"a": 2, "b": None, "c": None}}]}),
    ("map", {"inputs": [{"v": {"x": 1, "ß": 2}}]}),
    ("map", split(["v"], [{"x": 1}], [{}])),
    *(("any", {"inputs": [{"v": v}]}) for v in (None, 1, "a", [1, "a"], {"x": [None]}, True, 2.5)),
    *(("any", {"inputs": {"v": v}}) for v in ([""], ["a", "b"], [], [1, 2], [1.5, "a"], [["a"], ["b"]], [None], "a")),
    ("any", split(["v"], [{"x": 1}], [[1]], ["a"], [None])),
    ("unnamed long", {"inputs": [1, 2]}),
    ("unnamed long", {"inputs": 7}),
    ("unnamed long", split(["x"], [1], [2])),
    ("unnamed long", split(None, [1], [2])),
    ("unnamed text", {"inputs": "one"}),
    ("unnamed text", {"inputs": ["one", "two"]}),
    ("unnamed text", {"instances": ["one"]}),
    ("unnamed pair", {"inputs": [[1, 2], [3, 4]]}),
    ("unnamed pair", split(["a", "b", "c"], [1, 2, 3])),
    ("vector", {"inputs": [1, 2]}),
    ("vector", {"instances": [1, 2**62]}),
    ("vector", split(["x"], [1], [2])),
    *(("matrix", b) for b in ({"inputs": [[1, 2], [3.5, 4]]}, {"instances": [[1, 2]]}, split(["x", "y"], [1.5, 2.5]),
        split(["x"], [[1.5, 2.5]]), {"dataframe_records": [{"x": 1.5, "y": 2.5}]})),
    ("matrix", b'{"inputs": [[NaN, 1]]}'),
    ("cube", {"inputs": [[[1, 2], [3, 4]]]}),
    ("cube", {"instances": [[[0.1, 2], [3, 4]], [[5, 6], [7, 8]]]}),
    ("cube", split(["x"], [[1, 2, 3, 4.5]])),
    ("bytes tensor", {"inputs": ["a", "bcd"]}),
    ("fixed", {"inputs": [[1, 2], [3, 4]]}),
    ("open", {"inputs": [[[1, 2]], [[3, 4]]]}),
    ("open", {"inputs": [[[1, 2], [3, 4], [5, 6]]]}),
    ("named", {"inputs": {"m": [[1, 2], [3, 4]], "n": [1, 2]}}),
    ("named", {"inputs": {"n": [1], "m": [[1, 2], [3, 4]]}}),
    ("named", {"instances": [{"n": 1, "m": [1, 2]}, {"n": 2, "m": [3, 4]}]}),
    ("named", {"inputs": {"n": [1], "m": [[1, 2]], "more": ["x"]}}),
    *(("none", b) for b in (
        {"inputs": [1, 2]}, {"inputs": [[1, 2], [3, 4]]}, {"inputs": ["a", "b"]}, {"inputs": 5}, {"inputs": "a"},
        {"inputs": {"a": [1, 2], "b": ["x", "y"]}}, {"inputs": {"a": [1, 2], "b": [1]}}, {"inputs": {"a": 5}},
        {"inputs": [{"a": 1}, {"a": 2, "b": "x"}]}, {"inputs": {"a": {"b": [1]}}}, {"inputs": []}, {"inputs": {}},
        {"instances": [1, 2]}, {"instances": [{"a": 1}, {"a": 2}]}, {"instances": {"a": [1, 2]}}, {"inputs": None},
        {"instances": [[[1]], [[2]]]}, {"dataframe_records": [{"a": 1, "b": "x"}, {"a": 2}]},
        {"dataframe_records": []}, split(["a", "b"], [1, "x"], [2.5, None]), split(None, [1, "x"]),
        split(["a"], [[1, 2]], [{"x": 1}]), split([], []), {"inputs": [True, False]}, {"inputs": [1, 2.5]},
        {"inputs": [2**62]}, {"inputs": [None, "a"]}, {"inputs": [None, 1.5]})),
    *(("params", {"inputs": ["a"], **({"params": p} if p is not ... else {})}) for p in (
        ..., None, {}, {"threshold": 1, "top": 5}, {"name": "x", "on": True}, {"since": "2026-02-03T04:05:06"},
        {"labels": ["b", "c"], "weights": [1, 2.5]}, {"labels": []}, {"thing": {"a": 5}}, {"ratio": 0.1, "small": 2},
        {"unknown": 1}, {"top": None})),
    ("params", {"dataframe_records": [{"text": "a"}]}),
    ("prompt", {"prompt": "hi"}),
    ("prompt", {"prompt": "hi", "temperature": 0.5, "more": {}}),
    ("chat", {"messages": CHAT}),
    ("chat", {"messages": CHAT, "temperature": 0.5, "stream": True}),
    ("chat", {"inputs": {"messages": CHAT}}),
    ("chat", {"dataframe_records": [{"messages": CHAT, "temperature": None}]}),
    ("chat params", {"messages": CHAT, "threshold": 1.5}),
    ("chat params", {"messages": CHAT, "params": {"threshold": 1.5}}),
    ("embedding", {"input": "one"}),
    ("embedding", {"input": ["one", "two"]}),
    ("none", {"messages": CHAT, "inputs": [1]}),
    ("none", {"prompt": None}),
    ("none", {"input": [[1, 2]], "params": {"x": 1}}),
    ("params", {"prompt": "x", "text": "a", "threshold": 0.75}),
    ("text", {"input": "x", "text": "a"}),
    ("hint text", {"inputs": ["a", "ß"]}),
    ("hint text", {"inputs": []}),
    ("hint long", {"inputs": [1, 2**62]}),
    ("hint float", b'{"inputs": [1.5, NaN, 0.1]}'),
    ("hint dict", {"inputs": [{"a": 1}, {"b": 2}]}),
    ("hint lists", {"inputs": [[1.5], []]}),
    ("hint lists", b'{"inputs": [[NaN, 0.5]]}'),
    ("hint moment", {"inputs": ["2026-01-02T03:04:05"]}),
    ("hint bytes", {"inputs": [b64(b"\x00\x01\xff")]}),
    ("hint thing", {"inputs": [{"a": 1}, {"a": 2, "b": "y", "c": 0.5}]}),
    *((f"returns {name}", {"inputs": ["a", "b"]}) for name in RETURNS if name not in ODD),
]  # fmt: skip
# In one frame, pandas changes the type of a value to that of others in its column; row by row, each keeps its own.
MIXED: list[tuple[str, Any]] = [
    ("none", split(["a", "b"], [1, "x"], [2.5, None])),
    *(("none", {"inputs": rows}) for rows in ([1, 2.5], [None, "a"], [None, 1.5])),
]
