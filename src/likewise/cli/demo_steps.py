"""The steps of the `demo` command, from the training of a classifier to deployments that are compared and deleted."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.request import Request, urlopen

from likewise.bundles.open import is_bundle
from likewise.cli.walk import LIKEWISE, Walk
from likewise.core.errors import LikewiseError, NotSelfContained
from likewise.core.extras import need
from likewise.core.uris import without_secrets

EXAMPLE = (sys.executable, "-m", "likewise.demo")
SENTENCES = ("This is the best movie we saw.", "The plot is dull, and the jokes are terrible.")
REQUEST = {"columns": ["text"], "data": [[sentence] for sentence in SENTENCES]}
CURL = ("-H", "Content-Type: application/json", "-d", "@request.json")
LOCAL, ON_RAY = "likewise-demo", "likewise-demo-ray"  # names of the deployments
RAY_CPUS = 2
SAMPLE = 200  # rows that `verify` compares


@dataclass
class Demo:
    """Runs the steps of the example and records what each created.

    tracking_uri: the store, by default a SQLite file in the folder.  base_image: of the rehearsal's container, if it is
    not the default one.  missing: the parts (Spark, Ray Serve, SageMaker) that do not run, with the reason.
    """

    folder: Path
    quick: bool
    rows: int
    tracking_uri: str | None = None
    base_image: str | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.folder.absolute()
        self.walk = Walk(self.folder)

    def run(self) -> None:
        """Run all steps; the first failing step raises an error. No process is left running."""
        self.prepare()
        self.create()
        self.deploy()

    def create(self) -> None:
        """The steps that create the model and its bundle, serve it and score rows."""
        tuned = self._fine_tune()
        uri = self._log_and_register(str(tuned["uri"]))
        self._bundle(uri)
        with self._served() as url:
            self._curl(url)
        self._score()
        if "Spark" not in self.missing:
            self._spark(uri)

    def deploy(self) -> None:
        """The steps that deploy the bundle, compare the predictions, and delete the deployments."""
        with self._ray(), self._deleted_afterwards() as names:
            self._deploy("local", LOCAL, names)
            if "Ray Serve" not in self.missing:
                self._deploy("ray-serve", ON_RAY, names)
            if "SageMaker" not in self.missing:
                self._rehearse()
            self._verify(names)

    @property
    def setup(self) -> list[str]:
        """Shell commands after which the commands that the demo shows work in a new shell."""
        named = self.tracking_uri is not None
        store = shlex.quote(without_secrets(self.store)) if named else "sqlite:///$PWD/mlflow.db"
        lines = [f"cd {shlex.quote(shown(self.folder))}", f"export MLFLOW_TRACKING_URI={store}"]
        if shutil.which("likewise") is None:
            lines.insert(0, f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
        return lines

    # --- before the first step ---------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the folder, and set the environment of the commands.  Raises OutputRefused."""
        self.walk.prepare_folder()
        self.facts |= {"tracking_uri": without_secrets(self.store), "not_run": self.missing}
        if self.tracking_uri is None:
            self.walk.without = ("MLFLOW_",)
        self.walk.env = {
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_TRACKING_URI": self.store,
            "PYTHONWARNINGS": "ignore",
            "LIKEWISE_DATA_HOME": str(self.folder / "data"),
        }
        self._remove_leftovers()

    @property
    def store(self) -> str:
        """The tracking URI. That of a SQLite file has an absolute path, because commands run in other folders."""
        if self.tracking_uri is None:
            return f"sqlite:///{self.folder / 'mlflow.db'}"
        kind, separator, path = self.tracking_uri.partition("sqlite:///")
        return f"{separator}{Path(path).absolute()}" if separator and not kind else self.tracking_uri

    def _remove_leftovers(self) -> None:
        """Delete the deployment of a demo that was killed, and its records."""
        data = self.folder / "data"
        if data.exists():
            if self.walk.json(*LIKEWISE, "list", "--no-state", "--json")["deployments"]:
                self.walk.run(*LIKEWISE, "delete", LOCAL, "--to", "local", "--json")
            shutil.rmtree(data)

    # --- the model ---------------------------------------------------------------------------------------------------

    def _fine_tune(self) -> Mapping[str, object]:
        with self.walk.step("Fine-tune a sentiment classifier on movie reviews", "fine-tuned model") as done:
            tuned = self.walk.json(*EXAMPLE, "fine-tune", *(["--quick"] if self.quick else []), "--json")
            accuracy = float(str(tuned["accuracy"]))
            self.facts |= {"finetuned_model_uri": tuned["uri"], "accuracy": accuracy}
            self.walk.note(f"trained on {tuned['train_rows']:,} reviews")
            about = f"{accuracy:.1%} accuracy on {tuned['held_out_rows']:,} held-out reviews"
            ui = 'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI"'
            done(about, str(tuned["uri"]), ui if self.tracking_uri is None else "mlflow experiments search")
        return tuned

    def _log_and_register(self, finetuned: str) -> str:
        with self.walk.step("Log a pipeline that uses the classifier, and register it", "pipeline") as done:
            logged = self.walk.json(*EXAMPLE, "log-pipeline", "--finetuned-model-uri", finetuned, "--json")
            registered = self.walk.json(*EXAMPLE, "register", "--model-uri", str(logged["uri"]), "--json")
            uri = str(registered["model_uri"])
            self.facts |= {"pipeline_uri": logged["uri"], "registered": uri}
            done(f"registered as {uri}", str(logged["uri"]), f"likewise scan {uri}")
        return uri

    def _bundle(self, uri: str) -> None:
        path = self.folder / "bundle"
        with self.walk.step("Bundle it, and verify that it works without a network or a store", "bundle") as done:
            if is_bundle(path):
                shutil.rmtree(path)
            digest = str(self.walk.json(*LIKEWISE, "bundle", uri, "-o", "bundle", "--json")["digest"])
            self.facts |= {"bundle": digest}
            done(f"{digest[:19]}…", self._place("bundle"), "likewise inspect bundle")

    # --- requests and jobs -------------------------------------------------------------------------------------------

    @contextmanager
    def _served(self) -> Iterator[str]:
        with self.walk.step("Start the web service", "service") as done:
            argv = (*LIKEWISE, "serve", "bundle", "-p", "0", "--json")
            self.walk.type(argv)
            with self.walk.background(*argv, log="serve.log") as document:
                url = str(document["url"])
                done(
                    f"ready at {url} until the next step ends",
                    self._place("serve.log"),
                    "likewise serve bundle -p 5000",
                )
                yield url

    def _curl(self, url: str) -> None:
        with self.walk.step("Send it two sentences", "predictions") as done:
            file = self.folder / "request.json"
            file.write_text(json.dumps(REQUEST))
            argv = ("curl", "-sS", f"{url}/invocations", *CURL)
            if shutil.which("curl"):
                body = self.walk.run(*argv)
            else:
                self.walk.type(argv)
                request = Request(f"{url}/invocations", file.read_bytes(), {"Content-Type": "application/json"})  # noqa: S310
                with urlopen(request, timeout=60) as response:  # noqa: S310
                    body = response.read().decode()
            self.facts["answer"] = predictions = answers(body)
            labels = self._show(SENTENCES, predictions)
            again = shlex.join(["curl", "-sS", "http://127.0.0.1:5000/invocations", *CURL])
            done(", ".join(labels), self._place("request.json"), again)

    def _show(self, sentences: Sequence[str], predictions: Sequence[Mapping[str, Any]]) -> list[str]:
        """Print the label and the language of each sentence; returns the labels."""
        width = max(map(len, sentences))
        found = [(label(each), language(each)) for each in predictions]
        for sentence, each in zip(sentences, found, strict=True):
            self.walk.note(f"{sentence:<{width}}  {each[0]:<8}  {each[1]}")
        return [each[0] for each in found]

    def _score(self) -> None:
        from likewise.demo.data import write_rows

        with self.walk.step(f"Score {self.rows:,} rows with the local runner", "scored rows") as done:
            write_rows(self.folder / "rows.csv", self.rows)
            report = self.walk.json(*LIKEWISE, "score", "bundle", "rows.csv", "-o", "scored.csv", "--restart", "--json")
            predictions = _read_csv(self.folder / "scored.csv").values()
            languages = Counter(language(json.loads(each)) for each in predictions)
            counts = ", ".join(f"{name} {count:,}" for name, count in languages.most_common())
            self.facts |= {"score": report, "languages": dict(languages)}
            about = f"{report['rows_ok']:,} rows ({counts}; {report['duplicates']} duplicates)"
            done(about, self._place("scored.csv"), "likewise score bundle rows.csv -o again.csv")

    def _spark(self, uri: str) -> None:
        with self.walk.step("Score the same rows with plain mlflow.pyfunc.spark_udf, and compare", "Spark job") as done:
            self.walk.run(
                sys.executable, "-m", "likewise.demo.batch_inference", uri, "rows.csv", "spark", log="spark.log"
            )
            files = self.folder / "spark"
            table = need("pyarrow.parquet", extra="batch").read_table(files, columns=["row", "predictions"])
            spark = dict(zip(table["row"].to_pylist(), table["predictions"].to_pylist(), strict=True))
            local = _read_csv(self.folder / "scored.csv")
            equal = sum(spark.get(row) == prediction for row, prediction in local.items())
            self.facts["spark"] = {"rows": len(spark), "equal": equal}
            if equal != len(local) or len(spark) != len(local):
                raise NotSelfContained(
                    f"{len(local) - equal} of {len(local)} predictions differ from those of plain spark_udf",
                    remedy=f"compare {self.folder / 'scored.csv'} with {files}, and report it",
                )
            about = f"{equal:,} of {len(local):,} predictions are identical, character for character"
            then = "likewise score bundle rows.csv -o again --runner spark"
            done(about, self._place("spark"), then)

    # --- deployments -------------------------------------------------------------------------------------------------

    @contextmanager
    def _ray(self) -> Iterator[None]:
        """A Ray instance for the demo alone, which nobody else can use: it requires a token."""
        if "Ray Serve" in self.missing:
            yield
            return
        self.walk.env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token_hex(32)}
        with self.walk.step(f"Start Ray with {RAY_CPUS} CPUs, only for this demo", "Ray") as done:
            argv = (sys.executable, "-m", "likewise.demo.ray_node", str(RAY_CPUS))
            self.walk.type(argv)
            with self.walk.background(*argv, log="ray.log") as document:
                self.walk.env["RAY_ADDRESS"] = address = str(document["address"])
                done(f"ready at {address} until the demo ends", self._place("ray.log"), "ray start --head")
                yield

    @contextmanager
    def _deleted_afterwards(self) -> Iterator[list[str]]:
        """A list for the names of deployments, which are deleted at the end of `with`, also after an error."""
        names: list[str] = []
        try:
            yield names
            with self.walk.step("Delete what was deployed", "deleted") as done:
                deleted = ", ".join(names)
                while names:
                    self.walk.run(*LIKEWISE, "delete", names[-1], "--json")
                    names.pop()
                done("no deployment is left", deleted, "likewise list")
        except BaseException:
            for name in reversed(names):
                with suppress(LikewiseError):  # the first error is the one to report
                    self.walk.run(*LIKEWISE, "delete", name, "--json")
            raise

    def _deploy(self, target: str, name: str, names: list[str]) -> None:
        where = "Ray Serve" if name == ON_RAY else "this machine, as a background service"
        with self.walk.step(f"Deploy it to {where}", f"deployment on {where.partition(',')[0]}") as done:
            names.append(name)
            log = f"deploy-{target}.log"
            argv = (*LIKEWISE, "deploy", "bundle", "--to", target, "--name", name, "--json")
            self.facts[name] = receipt = self.walk.json(*argv, log=log)
            outputs: Mapping[str, Mapping[str, object]] = receipt["outputs"]  # type: ignore[assignment]
            url = next(each["url"] for each in outputs.values() if "url" in each)
            then = f"likewise deploy bundle --to {target} --name sentiment"
            done(f"ready at {url} until the comparison ends", self._place(log), then)

    def _rehearse(self) -> None:
        words = ["deploy", "bundle", "--to", "sagemaker:/eu-west-1", "--name", LOCAL, "--rehearse"]
        words += ["-C", f"base_image={self.base_image}"] if self.base_image else []
        with self.walk.step("Rehearse a deployment on SageMaker, in a container", "SageMaker rehearsal") as done:
            document = self.walk.json(*LIKEWISE, *words, "--json")
            self.facts["sagemaker"] = document["answer"]
            labels = ", ".join(label(each) for each in answers(str(document["answer"])))
            done(f"the input example got: {labels}", "deleted by the rehearsal", " ".join(["likewise", *words]))

    def _verify(self, names: Sequence[str]) -> None:
        """Compare all backends; MLflow's runs the pipeline's own code, which this demo has written."""
        against = [*names, *([] if "Spark" in self.missing else ["spark"]), "mlflow"]
        words = ["verify", "bundle", "--golden", "rows.csv", "--sample", str(min(SAMPLE, self.rows)), "--trust"]
        backends = [word for each in against for word in ("--against", each)]
        with self.walk.step("Compare the predictions of all backends, row by row", "comparison") as done:
            parity = self.walk.json(*LIKEWISE, *words, *backends, "--report", "verify.html", "--json", log="verify.log")
            places: Sequence[Mapping[str, object]] = parity["places"]  # type: ignore[assignment]
            width = max(len(str(each["where"])) for each in places)
            for each in places:
                self.walk.note(f"{each['where']:<{width}}  {each['verdict']}: {each['proves']}")
            self.facts["verify"] = {str(each["where"]): each["verdict"] for each in places}
            about = f"{len(places)} backends and this machine predict the same for {parity['rows']:,} rows"
            done(about, self._place("verify.html"), " ".join(["likewise", *words, "--against", "mlflow"]))

    def _place(self, name: str) -> str:
        """The path of a file of the demo, for the user's current folder."""
        return shown(self.folder / name)


def answers(body: str) -> list[Mapping[str, Any]]:
    """The pipeline's predictions in a response: JSON documents in the column `text`, or in `predictions`."""
    document = json.loads(body)
    records = document["predictions"] if isinstance(document, dict) else document
    return [json.loads(each["text"] if isinstance(each, dict) else each) for each in records]


def label(prediction: Mapping[str, Any]) -> str:
    """The label of a prediction of the pipeline."""
    return str(prediction["response"]["prediction_label"][0])


def language(prediction: Mapping[str, Any]) -> str:
    """The language that the pipeline has detected."""
    return str(prediction["metadata"]["language_detected"])


def shown(path: Path) -> str:
    """The path for the user's current folder: relative if it is below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _read_csv(path: Path) -> dict[str, str]:
    """The predictions in a scored CSV file, by the value of its column `row`."""
    with path.open(encoding="utf-8", newline="") as stream:
        return {row["row"]: row["predictions"] for row in csv.DictReader(stream)}
