"""`likewise demo`: the chapter from end to end, each step by the command that a user would type."""

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
BOOK = json.dumps({"columns": ["text"], "data": [[s] for s in SENTENCES]})
PATIENCE = 120.0  # seconds for the service to be ready
STOPPING = 30.0  # seconds that a child may clean up after itself; a server takes up to 23
MARKER = ".likewise-demo"  # in a folder that the demo made, and may overwrite


@dataclass(frozen=True, slots=True)
class Made:
    """A line of the closing table."""

    what: str
    where: str
    then: str
    seconds: float


@dataclass
class Chapter:
    """The steps, and what each made."""

    folder: Path
    quick: bool
    rows: int
    made: list[Made] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    _step: int = 0

    def run(self) -> None:
        """Every step; the first that fails ends it, and nothing is left running."""
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
            self._note("no Java here, so the same rows were not scored on Spark (likewise doctor says how to get it)")
            self.facts["spark"] = "not run: no Java"

    # --- steps -------------------------------------------------------------------------------------------------------

    def _fine_tune(self) -> Mapping[str, object]:
        with self._doing("Fine-tune a sentiment classifier on movie reviews", "model") as done:
            tuned = self._json(*EXAMPLE, "fine-tune", "--json", *(["--quick"] if self.quick else []))
            accuracy = float(str(tuned["accuracy"]))
            self.facts |= {"finetuned_model_uri": tuned["uri"], "accuracy": accuracy}
            self._note(f"trained on {tuned['train_rows']:,} reviews")
            right = f"{accuracy:.1%} right on {tuned['held_out_rows']:,} held-out reviews"
            done(f"{tuned['uri']}  ({right})", self._with_store(f"{program('mlflow')} ui"))
        return tuned

    def _log_and_register(self, finetuned: str) -> str:
        with self._doing("Log the pipeline around it, and register it", "pipeline") as done:
            logged = self._json(*EXAMPLE, "log-pipeline", "--finetuned-model-uri", finetuned, "--json")
            registered = self._json(*EXAMPLE, "register", "--model-uri", str(logged["uri"]), "--json")
            uri = str(registered["model_uri"])
            self.facts |= {"pipeline_uri": logged["uri"], "registered": uri}
            done(f"{uri} = {logged['uri']}", self._with_store(f"{program('likewise')} inspect {uri}"))
        return uri

    def _bundle(self, uri: str) -> Path:
        path = self.folder / "bundle"
        with self._doing("Bundle it, and prove that it answers with no network and no store", "bundle") as done:
            if is_bundle(path):
                shutil.rmtree(path)
            made = self._json(*LIKEWISE, "bundle", uri, "-o", str(path), "--json")
            self.facts |= {"bundle": made["digest"]}
            done(f"{path}  {str(made['digest'])[:19]}…", f"{program('likewise')} inspect {path}")
        return path

    @contextmanager
    def _served(self, bundle: Path) -> Iterator[str]:
        with self._doing("Start the web service", "service") as done:
            argv = [*LIKEWISE, "serve", str(bundle), "-p", "0", "--json"]
            with (self.folder / "serve.log").open("w") as log, self._child(argv, log) as server:
                url = self._await_ready(server)
                self._note(f"ready at {url}")
                done(f"{self.folder / 'serve.log'} (stopped again)", f"{program('likewise')} serve {bundle} -p 5000")
                yield url

    def _await_ready(self, server: subprocess.Popen[str]) -> str:
        """The service's URL, which it prints once it is ready."""
        assert server.stdout is not None  # noqa: S101  it was opened as a pipe
        stop = threading.Timer(PATIENCE, server.kill)
        stop.start()
        try:
            text = ""
            while not text.endswith("}\n") and (line := server.stdout.readline()):
                text += line
        finally:
            stop.cancel()
        told = json.loads(text or "{}")
        if "url" not in told:
            raise LikewiseError(
                "the service did not become ready", remedy=f"read {self.folder / 'serve.log'}, and report it"
            )
        return str(told["url"])

    def _curl(self, url: str) -> None:
        with self._doing("Ask it what the book asks", "answer") as done:
            argv = ["curl", "-sS", f"{url}/invocations", "-H", "Content-Type: application/json", "-d", BOOK]
            self._note(f"$ {shlex.join(argv)}")
            if shutil.which("curl"):
                body = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
            else:
                request = Request(f"{url}/invocations", BOOK.encode(), {"Content-Type": "application/json"})  # noqa: S310
                with urlopen(request, timeout=60) as answer:  # noqa: S310
                    body = answer.read().decode()
            self._note(body)
            answers = [json.loads(record["text"]) for record in json.loads(body)]
            labels = [a["response"]["prediction_label"][0] for a in answers]
            self.facts["answer"] = answers
            done("; ".join(f"{s!r} {label}" for s, label in zip(SENTENCES, labels, strict=True)), "")

    def _score(self, bundle: Path, rows: Path) -> Path:
        from likewise.demo.data import write_rows

        output = self.folder / "scored.csv"
        with self._doing(f"Score {self.rows:,} rows with the local runner", "predictions") as done:
            write_rows(rows, self.rows)
            report = self._json(*LIKEWISE, "score", str(bundle), str(rows), "-o", str(output), "--restart", "--json")
            languages = Counter(json.loads(a)["metadata"]["language_detected"] for a in _read_csv(output).values())
            seen = ", ".join(f"{name} {count:,}" for name, count in languages.most_common())
            self.facts |= {"score": report, "languages": dict(languages)}
            done(
                f"{output}  ({seen}; {report['duplicates']} repeated)",
                f"{program('likewise')} score {bundle} FILE.csv -o OUT.csv",
            )
        return output

    def _spark(self, uri: str, rows: Path, scored: Path) -> None:
        output = self.folder / "spark"
        with self._doing("Score the same rows with plain mlflow.pyfunc.spark_udf, and compare", "parity") as done:
            argv = (sys.executable, "-m", "likewise.demo.batch_inference", uri, str(rows), str(output))
            self._run(*argv, log=self.folder / "spark.log")
            table = need("pyarrow.parquet", extra="batch").read_table(output, columns=["row", "predictions"])
            spark = dict(zip(table["row"].to_pylist(), table["predictions"].to_pylist(), strict=True))
            ours = _read_csv(scored)
            same = sum(spark.get(row) == answer for row, answer in ours.items())
            self.facts["spark"] = {"rows": len(spark), "equal": same}
            if same != len(ours) or len(spark) != len(ours):
                raise NotSelfContained(
                    f"{len(ours) - same} of {len(ours)} answers differ from plain spark_udf's",
                    remedy=f"compare {scored} with {output}, and report it",
                )
            done(f"{output}  ({same:,} of {len(ours):,} answers are the same, character for character)", "")

    # --- how a step runs ---------------------------------------------------------------------------------------------

    def _prepare_folder(self) -> None:
        self.folder = self.folder.resolve()
        marker = self.folder / MARKER
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not marker.exists() and any(self.folder.iterdir()):
                raise OutputRefused(
                    f"{self.folder} is not empty, and not a folder that the demo made",
                    remedy="name a new folder with -o",
                )
            marker.touch()
        except OSError as error:
            raise OutputRefused(f"cannot make {self.folder}: {error}", remedy="name another folder with -o") from error

    def _environment(self) -> dict[str, str]:
        store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.folder / 'mlflow.db'}"
        quiet = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "PYTHONWARNINGS": "ignore"}
        return {**os.environ, **quiet, "MLFLOW_TRACKING_URI": store}

    def _with_store(self, command: str) -> str:
        return f"MLFLOW_TRACKING_URI={self._environment()['MLFLOW_TRACKING_URI']} {command}"

    def _json(self, *argv: str) -> Mapping[str, object]:
        document = json.loads(self._run(*argv))
        assert isinstance(document, dict)  # noqa: S101  every command prints one object
        return document

    def _run(self, *argv: str, log: Path | None = None) -> str:
        """stdout of a child that shows its own progress on stderr (or writes it to `log`)."""
        with log.open("w") if log else nullcontext() as told, self._child(argv, told) as child:
            stdout, _ = child.communicate()
        if child.returncode:
            said = _cause(stdout)
            raise LikewiseError(
                f"{shlex.join(argv[2:])} ended with {child.returncode}{': ' + said if said else ''}",
                remedy=f"read {log}" if log else "see above; run that command by hand for more",
            )
        return stdout

    @contextmanager
    def _child(self, argv: Sequence[str], told: IO[str] | None) -> Iterator[subprocess.Popen[str]]:
        """A process that does not outlive the block: it is asked to stop, so that it cleans up, and then made to."""
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=told, text=True, env=self._environment(), cwd=self.folder
        ) as child:
            try:
                yield child
            finally:
                child.terminate()
                try:
                    with suppress(subprocess.TimeoutExpired):
                        child.wait(STOPPING)
                finally:
                    child.kill()

    @contextmanager
    def _doing(self, title: str, what: str) -> Iterator[Callable[[str, str], None]]:
        self._step += 1
        err.print(f"\n[bold cyan]{self._step}[/bold cyan] [bold]{escape(title)}[/bold]")
        start = time.perf_counter()

        def done(where: str, then: str) -> None:
            seconds = time.perf_counter() - start
            self.made.append(Made(what, where, then, seconds))
            err.print(f"  [green]✓[/green] {escape(where)} [dim]{seconds:.1f} s[/dim]", soft_wrap=True)

        yield done

    @staticmethod
    def _note(text: str) -> None:
        err.print(f"  [dim]{escape(text)}[/dim]", soft_wrap=True)


def program(name: str) -> str:
    """What to type for `name`: itself where the shell finds it, else its place in this environment."""
    return name if shutil.which(name) else str(Path(sys.executable).parent / name)


def _read_csv(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as stream:
        return {row["row"]: row["predictions"] for row in csv.DictReader(stream)}


def _cause(stdout: str) -> str:
    try:
        return str(json.loads(stdout)["error"]["cause"])
    except (ValueError, KeyError, TypeError):
        return ""
