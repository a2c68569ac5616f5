"""The servers that are compared: how each is started and called, and where its response contains the label."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.environments import python_of, versions
from bench.model import Subject, body
from bench.peer_models import Models, export_models
from bench.servers import likewise_serve

REQUIREMENTS = Path(__file__).with_name("peers")
BENEATH = ("numpy", "pandas", "starlette", "tokenizers", "uvicorn")  # recorded in addition to the requirements
OURS = "likewise serve"
QUIET = (
    *("HF_HUB_OFFLINE=1", "DO_NOT_TRACK=1", "BENTOML_DO_NOT_TRACK=True"),
    *("MLFLOW_DISABLE_TELEMETRY=true", "RAY_USAGE_STATS_ENABLED=0"),
)


@dataclass(frozen=True)
class Dialect:
    """The request format at `path`, and the location of the pipeline's output in a response.

    shape: builds the request's JSON from a text; place: keys and indices from the response to the output.
    """

    name: str
    path: str
    shape: Callable[[str], object]
    place: tuple[str | int, ...]

    def body(self, text: str) -> bytes:
        """The request body for a text."""
        return json.dumps(self.shape(text)).encode()

    def label(self, response: bytes) -> str:
        """The label in a response body."""
        value = json.loads(response)
        for step in self.place:
            value = value[step]
        return str(json.loads(value)["response"]["prediction_label"][0])


@dataclass(frozen=True)
class Contender:
    """A server to compare. argv: its command, with PORT for the port; python: the interpreter of its environment."""

    title: str
    argv: tuple[str, ...]
    dialect: Dialect
    python: str = sys.executable


@dataclass(frozen=True)
class Peer:
    """A server other than Likewise. environment: name of its requirements file; command: builds its argv."""

    title: str
    environment: str
    dialect: Dialect
    command: Callable[[Path, Models], tuple[str, ...]]

    def python(self) -> Path:
        """The interpreter of its environment, which is created if missing."""
        path = REQUIREMENTS / f"requirements-{self.environment}.txt"
        return python_of(self.environment, path.read_text(encoding="utf-8"), ["-r", str(path)])


def contenders(model: Subject, names: list[str]) -> list[Contender]:
    """Likewise's servers and the named peers."""
    compared = [
        Contender(OURS, tuple(likewise_serve(model.bundle)), MLFLOW),
        Contender(f"{OURS} --exact", tuple(likewise_serve(model.bundle, "--exact")), MLFLOW),
    ]
    models = export_models(model, PEERS["mlflow"].python()) if names else None
    for peer in [PEERS[name] for name in names]:
        assert models is not None
        python = peer.python()
        argv = ("env", *QUIET, *peer.command(python.parent, models))
        compared.append(Contender(peer.title, argv, peer.dialect, str(python)))
    return compared


def environments(names: list[str]) -> dict[str, dict[str, str]]:
    """By environment, the versions of its requirements and of a few dependencies."""
    by_environment = {}
    for peer in [PEERS[name] for name in names]:
        wanted = (REQUIREMENTS / f"requirements-{peer.environment}.txt").read_text(encoding="utf-8").split()
        required = [each.partition("==")[0].partition("[")[0] for each in wanted]
        by_environment[peer.environment] = versions(peer.python(), *required, *BENEATH)
    return by_environment


def _v2(text: str) -> object:
    tensor = {
        "name": "text",
        "shape": [1, 1],
        "datatype": "BYTES",
        "data": [text],
        "parameters": {"content_type": "str"},
    }
    return {"parameters": {"content_type": "pd"}, "inputs": [tensor]}


def _split(text: str) -> object:
    return json.loads(body(text))


MLFLOW = Dialect("mlflow", "/invocations", _split, ("predictions", 0, "text"))
RAY = Dialect("ray", "/invocations", _split, (0, "text"))
LIT = Dialect("litserve", "/predict", lambda text: {"text": text}, ("text",))
BENTO = Dialect("bentoml", "/predict", lambda text: {"texts": [text]}, (0,))
V2 = Dialect("v2", "/v2/models/reviews/infer", _v2, ("outputs", 0, "data", 0))


def _mlflow(name: str, *options: str) -> Callable[[Path, Models], tuple[str, ...]]:
    def command(programs: Path, models: Models) -> tuple[str, ...]:
        model = ("-m", str(models.pyfunc(name)), "--env-manager", "local")
        return (str(programs / "mlflow"), "models", "serve", *model, "-p", "PORT", *options)

    return command


def _module(name: str, which: Callable[[Models], Path]) -> Callable[[Path, Models], tuple[str, ...]]:
    return lambda programs, models: (str(programs / "python"), "-m", f"bench.peers.{name}", str(which(models)), "PORT")


def _bentoml(programs: Path, models: Models) -> tuple[str, ...]:
    options = ("--host", "127.0.0.1", "-p", "PORT")
    serve = (str(programs / "bentoml"), "serve", "bench.peers.bento_server:Classifier", *options)
    return (f"CLASSIFIER={models.classifier}", *serve)


def _mlserver(programs: Path, models: Models) -> tuple[str, ...]:
    return ("MLSERVER_HTTP_PORT=PORT", str(programs / "mlserver"), "start", str(models.mlserver()))


PEERS: Mapping[str, Peer] = {
    "mlflow": Peer("mlflow models serve, row by row", "ray", MLFLOW, _mlflow("rows")),
    "mlflow-batched": Peer("mlflow models serve, batched", "ray", MLFLOW, _mlflow("batched")),
    "mlflow-workers": Peer(
        "mlflow models serve, batched, 2 workers", "ray", MLFLOW, _mlflow("batched", "--workers", "2")
    ),
    "litserve": Peer("LitServe", "lit", LIT, _module("lit_server", lambda models: models.classifier)),
    "bentoml": Peer("BentoML", "bento", BENTO, _bentoml),
    "ray": Peer("Ray Serve", "ray", RAY, _module("ray_server", lambda models: models.pyfunc("batched"))),
    "mlserver": Peer("MLServer", "mlserver", V2, _mlserver),
}
