"""The `demo` command: runs the example from end to end, each step with the command that a user would type."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.request import Request, urlopen

from rich.markup import escape

from likewise.bundles.open import is_bundle
from likewise.cli.screen import err
from likewise.core.errors import LikewiseError, NotSelfContained, OutputRefused
from likewise.core.extras import need

LIKEWISE = (sys.executable, "-m", "likewise.cli")
EXAMPLE = (sys.executable, "-m", "likewise.demo")
SENTENCES = ("This is the best movie we saw.", "What a movie!")
REQUEST = json.dumps({"columns": ["text"], "data": [[s] for s in SENTENCES]})
READY_TIMEOUT_S = 120.0  # for the service to become ready
STOP_TIMEOUT_S = 30.0  # for a child process to clean up; a server takes up to 23 s
MARKER = ".likewise-demo"  # marks a folder that the demo created and may overwrite


@dataclass(frozen=True, slots=True)
class Artifact:
    """What one step created: a line of the final table. then: the command to try next; seconds: duration."""

    what: str
    where: str
    then: str
    seconds: float


@dataclass
class Demo:
    """Runs the steps of the example and records what each created."""

    folder: Path
    quick: bool
    rows: int
    artifacts: list[Artifact] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    _number: int = 0  # of the current step

    def run(self) -> None:
        """Run all steps; the first failing step raises an error. No process is left running."""
        self._prepare_folder()
        tuned = self._fine_tune()
        pipeline_uri = self._log_and_register(str(tuned["uri"]))
        bundle = self._bundle(pipeline_uri)
        rows = self.folder / "rows.csv"
        with self._served(bundle) as url:
            self._curl(url)
        scored = self._score(bundle, rows)
        if shutil.which("java"):
            self._spark(pipeline_uri, rows, scored)
        else:
            self._note("Java is not installed, so the rows were not scored on Spark (see: likewise doctor)")
            self.facts["spark"] = "not run: no Java"

    # --- steps -------------------------------------------------------------------------------------------------------

    def _fine_tune(self) -> Mapping[str, object]:
        with self._step("Fine-tune a sentiment classifier on movie reviews", "model") as done:
            tuned = self._json(*EXAMPLE, "fine-tune", "--json", *(["--quick"] if self.quick else []))
            accuracy = float(str(tuned["accuracy"]))
            self.facts |= {"finetuned_model_uri": tuned["uri"], "accuracy": accuracy}
            self._note(f"trained on {tuned['train_rows']:,} reviews")
            result = f"{accuracy:.1%} accuracy on {tuned['held_out_rows']:,} held-out reviews"
            done(f"{tuned['uri']}  ({result})", self._with_store(f"{program('mlflow')} ui"))
        return tuned

    def _log_and_register(self, finetuned: str) -> str:
        with self._step("Log a pipeline that uses the classifier, and register it", "pipeline") as done:
            logged = self._json(*EXAMPLE, "log-pipeline", "--finetuned-model-uri", finetuned, "--json")
            registered = self._json(*EXAMPLE, "register", "--model-uri", str(logged["uri"]), "--json")
            uri = str(registered["model_uri"])
            self.facts |= {"pipeline_uri": logged["uri"], "registered": uri}
            done(f"{uri} = {logged['uri']}", self._with_store(f"{program('likewise')} inspect {uri}"))
        return uri

    def _bundle(self, uri: str) -> Path:
        path = self.folder / "bundle"
        with self._step("Bundle it, and verify that it works without a network or a store", "bundle") as done:
            if is_bundle(path):
                shutil.rmtree(path)
            digest = str(self._json(*LIKEWISE, "bundle", uri, "-o", str(path), "--json")["digest"])
            self.facts |= {"bundle": digest}
            done(f"{path}  {digest[:19]}…", f"{program('likewise')} inspect {path}")
        return path

    @contextmanager
    def _served(self, bundle: Path) -> Iterator[str]:
        with self._step("Start the web service", "service") as done:
            argv = [*LIKEWISE, "serve", str(bundle), "-p", "0", "--json"]
            with (self.folder / "serve.log").open("w") as log, self._child(argv, log) as server:
                url = self._await_ready(server)
                self._note(f"ready at {url}")
                done(f"{self.folder / 'serve.log'} (now stopped)", f"{program('likewise')} serve {bundle} -p 5000")
                yield url

    def _await_ready(self, server: subprocess.Popen[str]) -> str:
        """Wait until the service prints its URL, which means that it is ready, and return the URL."""
        assert server.stdout is not None  # noqa: S101  it was opened as a pipe
        timer = threading.Timer(READY_TIMEOUT_S, server.kill)
        timer.start()
        try:
            text = ""
            while not text.endswith("}\n") and (line := server.stdout.readline()):
                text += line
        finally:
            timer.cancel()
        document = json.loads(text or "{}")
        if "url" not in document:
            raise LikewiseError(
                "the service did not become ready", remedy=f"read {self.folder / 'serve.log'}, and report it"
            )
        return str(document["url"])

    def _curl(self, url: str) -> None:
        with self._step("Send it a request", "predictions") as done:
            argv = ["curl", "-sS", f"{url}/invocations", "-H", "Content-Type: application/json", "-d", REQUEST]
            self._note(f"$ {shlex.join(argv)}")
            if shutil.which("curl"):
                body = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
            else:
                request = Request(f"{url}/invocations", REQUEST.encode(), {"Content-Type": "application/json"})  # noqa: S310
                with urlopen(request, timeout=60) as response:  # noqa: S310
                    body = response.read().decode()
            self._note(body)
            predictions = [json.loads(record["text"]) for record in json.loads(body)]
            labels = [each["response"]["prediction_label"][0] for each in predictions]
            self.facts["answer"] = predictions
            done("; ".join(f"{s!r} {label}" for s, label in zip(SENTENCES, labels, strict=True)), "")

    def _score(self, bundle: Path, rows: Path) -> Path:
        from likewise.demo.data import write_rows

        output = self.folder / "scored.csv"
        with self._step(f"Score {self.rows:,} rows with the local runner", "scored rows") as done:
            write_rows(rows, self.rows)
            report = self._json(*LIKEWISE, "score", str(bundle), str(rows), "-o", str(output), "--restart", "--json")
            predictions = _read_csv(output).values()
            languages = Counter(json.loads(each)["metadata"]["language_detected"] for each in predictions)
            counts = ", ".join(f"{name} {count:,}" for name, count in languages.most_common())
            self.facts |= {"score": report, "languages": dict(languages)}
            done(
                f"{output}  ({counts}; {report['duplicates']} duplicates)",
                f"{program('likewise')} score {bundle} FILE.csv -o OUT.csv",
            )
        return output

    def _spark(self, uri: str, rows: Path, scored: Path) -> None:
        output = self.folder / "spark"
        with self._step("Score the same rows with plain mlflow.pyfunc.spark_udf, and compare", "parity") as done:
            argv = (sys.executable, "-m", "likewise.demo.batch_inference", uri, str(rows), str(output))
            self._run(*argv, log=self.folder / "spark.log")
            table = need("pyarrow.parquet", extra="batch").read_table(output, columns=["row", "predictions"])
            spark = dict(zip(table["row"].to_pylist(), table["predictions"].to_pylist(), strict=True))
            local = _read_csv(scored)
            equal = sum(spark.get(row) == prediction for row, prediction in local.items())
            self.facts["spark"] = {"rows": len(spark), "equal": equal}
            if equal != len(local) or len(spark) != len(local):
                raise NotSelfContained(
                    f"{len(local) - equal} of {len(local)} predictions differ from those of plain spark_udf",
                    remedy=f"compare {scored} with {output}, and report it",
                )
            done(f"{output}  ({equal:,} of {len(local):,} predictions are identical, character for character)", "")

    # --- how a step runs ---------------------------------------------------------------------------------------------

    def _prepare_folder(self) -> None:
        self.folder = self.folder.resolve()
        marker = self.folder / MARKER
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not marker.exists() and any(self.folder.iterdir()):
                raise OutputRefused(
                    f"{self.folder} is not empty, and was not created by the demo",
                    remedy="choose a new folder with -o",
                )
            marker.touch()
        except OSError as error:
            raise OutputRefused(f"cannot create {self.folder}: {error}", remedy="use another folder: -o DIR") from error

    def _environment(self) -> dict[str, str]:
        store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.folder / 'mlflow.db'}"
        quiet = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "PYTHONWARNINGS": "ignore"}
        return {**os.environ, **quiet, "MLFLOW_TRACKING_URI": store}

    def _with_store(self, command: str) -> str:
        """The command with the store, unless the user's own environment specifies it, perhaps with a password."""
        if os.environ.get("MLFLOW_TRACKING_URI"):
            return command
        return f"MLFLOW_TRACKING_URI={self._environment()['MLFLOW_TRACKING_URI']} {command}"

    def _json(self, *argv: str) -> Mapping[str, object]:
        document = json.loads(self._run(*argv))
        assert isinstance(document, dict)  # noqa: S101  every command prints one object
        return document

    def _run(self, *argv: str, log: Path | None = None) -> str:
        """Run a child process to its end and return its stdout; its stderr goes to `log`, else to ours."""
        with log.open("w") if log else nullcontext() as stderr, self._child(argv, stderr) as child:
            stdout, _ = child.communicate()
        if child.returncode:
            cause = _cause(stdout)
            raise LikewiseError(
                f"{shlex.join(argv[2:])} exited with code {child.returncode}{': ' + cause if cause else ''}",
                remedy=f"read {log}" if log else "see the output above, or run this command by hand for more detail",
            )
        return stdout

    @contextmanager
    def _child(self, argv: Sequence[str], stderr: IO[str] | None) -> Iterator[subprocess.Popen[str]]:
        """A child process that does not outlive the block: SIGTERM, time to clean up, then SIGKILL."""
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=stderr, text=True, env=self._environment(), cwd=self.folder
        ) as child:
            try:
                yield child
            finally:
                child.terminate()
                try:
                    with suppress(subprocess.TimeoutExpired):
                        child.wait(STOP_TIMEOUT_S)
                finally:
                    child.kill()

    @contextmanager
    def _step(self, title: str, what: str) -> Iterator[Callable[[str, str], None]]:
        """Print the step's title; the caller ends the step by calling the result with (where, then) of its artifact."""
        self._number += 1
        err.print(f"\n[bold cyan]{self._number}[/bold cyan] [bold]{escape(title)}[/bold]")
        start = time.perf_counter()

        def done(where: str, then: str) -> None:
            seconds = time.perf_counter() - start
            self.artifacts.append(Artifact(what, where, then, seconds))
            err.print(f"  [green]✓[/green] {escape(where)} [dim]{seconds:.1f} s[/dim]", soft_wrap=True)

        yield done

    @staticmethod
    def _note(text: str) -> None:
        err.print(f"  [dim]{escape(text)}[/dim]", soft_wrap=True)


def program(name: str) -> str:
    """The command to type for `name`: the name itself if it is on the PATH, else its path in this environment."""
    return name if shutil.which(name) else str(Path(sys.executable).parent / name)


def _read_csv(path: Path) -> dict[str, str]:
    """The predictions in a scored CSV file, by the value of its column `row`."""
    with path.open(encoding="utf-8", newline="") as stream:
        return {row["row"]: row["predictions"] for row in csv.DictReader(stream)}


def _cause(stdout: str) -> str:
    """The cause in a command's JSON error document; empty if stdout does not contain one."""
    try:
        return str(json.loads(stdout)["error"]["cause"])
    except (ValueError, KeyError, TypeError):
        return ""
