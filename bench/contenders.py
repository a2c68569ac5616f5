"""Who is compared: how each is started, how it is asked, and where in what it says the answer is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.environments import python_of, versions
from bench.model import Subject, body
from bench.peer_models import Models, made
from bench.servers import likewise_serve

REQUIREMENTS = Path(__file__).with_name("peers")
BENEATH = ("numpy", "pandas", "starlette", "tokenizers", "uvicorn")  # recorded beside what is required
OURS = "likewise serve"
QUIET = (
    *("HF_HUB_OFFLINE=1", "DO_NOT_TRACK=1", "BENTOML_DO_NOT_TRACK=True"),
    *("MLFLOW_DISABLE_TELEMETRY=true", "RAY_USAGE_STATS_ENABLED=0"),
)


@dataclass(frozen=True)
class Dialect:
    """How one text is asked at `path`, and how the pipeline's answer is found in what comes back."""

    name: str
    path: str
    shape: Callable[[str], object]
    place: tuple[str | int, ...]

    def body(self, text: str) -> bytes:
        """A request's body."""
        return json.dumps(self.shape(text)).encode()

    def label(self, said: bytes) -> str:
        """The label in a response's body."""
        found = json.loads(said)
        for step in self.place:
            found = found[step]
        return str(json.loads(found)["response"]["prediction_label"][0])


@dataclass(frozen=True)
class Contender:
    """argv: what starts it, with PORT for the port; python: whose programs it finds."""

    title: str
    argv: tuple[str, ...]
    dialect: Dialect
    python: str = sys.executable


@dataclass(frozen=True)
class Peer:
    """environment: the name of its requirements; command: its arguments, from the environment's programs and models."""

    title: str
    environment: str
    dialect: Dialect
    command: Callable[[Path, Models], tuple[str, ...]]

    def python(self) -> Path:
        """The interpreter of its environment, which is made where it is not."""
        path = REQUIREMENTS / f"requirements-{self.environment}.txt"
        return python_of(self.environment, path.read_text(encoding="utf-8"), ["-r", str(path)])


def contenders(model: Subject, names: list[str]) -> list[Contender]:
    """Ours, and the peers of these names."""
    found = [
        Contender(OURS, tuple(likewise_serve(model.bundle)), MLFLOW),
        Contender(f"{OURS} --exact", tuple(likewise_serve(model.bundle, "--exact")), MLFLOW),
    ]
    models = made(model, PEERS["mlflow"].python()) if names else None
    for peer in [PEERS[name] for name in names]:
        assert models is not None
        python = peer.python()
        argv = ("env", *QUIET, *peer.command(python.parent, models))
        found.append(Contender(peer.title, argv, peer.dialect, str(python)))
    return found


def environments(names: list[str]) -> dict[str, dict[str, str]]:
    """By environment, the versions of what its requirements name and of a few things beneath."""
    found = {}
    for peer in [PEERS[name] for name in names]:
        wanted = (REQUIREMENTS / f"requirements-{peer.environment}.txt").read_text(encoding="utf-8").split()
        required = [each.partition("==")[0].partition("[")[0] for each in wanted]
        found[peer.environment] = versions(peer.python(), *required, *BENEATH)
    return found


def _v2(text: str) -> object:
    given = {
        "name": "text",
        "shape": [1, 1],
        "datatype": "BYTES",
        "data": [text],
        "parameters": {"content_type": "str"},
    }
    return {"parameters": {"content_type": "pd"}, "inputs": [given]}


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
