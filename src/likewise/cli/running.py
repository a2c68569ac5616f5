"""`serve` and `score`: a model that answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from likewise import api
from likewise.batch import Report, ScoreOptions
from likewise.batch.options import parse_columns, parse_conf
from likewise.cli.models import Model, TrustFlag
from likewise.cli.options import EngineName, Exact, Precision, asked_precision
from likewise.cli.options import described as _help
from likewise.cli.progress import JobProgress
from likewise.cli.screen import Json, Screen
from likewise.core.errors import WrongUsage
from likewise.server import ServerOptions

MB = 1024 * 1024
_serving = ServerOptions()


def serve(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="As for `bundle`.")] = None,
    model_uri: Annotated[
        str | None,
        typer.Option("--model-uri", "-m", metavar="MODEL", help="The same, as `mlflow models serve` has it."),
    ] = None,
    host: Annotated[str, typer.Option("--host", "-h", help=_help(ServerOptions, "host"))] = _serving.host,
    port: Annotated[
        int, typer.Option("--port", "-p", help=_help(ServerOptions, "port"), min=0, max=65535)
    ] = _serving.port,
    workers: Annotated[
        int, typer.Option("--workers", "-w", help=_help(ServerOptions, "workers"), min=0)
    ] = _serving.workers,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help=_help(ServerOptions, "token_file"))
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help=_help(ServerOptions, "insecure"))] = False,
    deadline: Annotated[
        float, typer.Option("--deadline", metavar="SECONDS", help=_help(ServerOptions, "deadline_s"), min=0.001)
    ] = _serving.deadline_s,
    queue_tokens: Annotated[
        int, typer.Option("--queue-tokens", help=_help(ServerOptions, "queue_tokens"), min=1)
    ] = _serving.queue_tokens,
    cache_mb: Annotated[
        float, typer.Option("--cache-mb", help=_help(ServerOptions, "cache_bytes"), min=0)
    ] = _serving.cache_bytes / MB,
    body_limit_mb: Annotated[
        float, typer.Option("--body-limit-mb", help=_help(ServerOptions, "body_limit_bytes"), min=0.001)
    ] = _serving.body_limit_bytes / MB,
    header_timeout: Annotated[
        float, typer.Option("--header-timeout", metavar="SECONDS", help=_help(ServerOptions, "header_timeout_s"))
    ] = _serving.header_timeout_s,
    read_timeout: Annotated[
        float, typer.Option("--read-timeout", metavar="SECONDS", help=_help(ServerOptions, "read_timeout_s"))
    ] = _serving.read_timeout_s,
    access_log: Annotated[
        bool, typer.Option("--access-log/--no-access-log", help=_help(ServerOptions, "access_log"))
    ] = True,
    engine: EngineName = None,
    precision: Precision = None,
    exact: Exact = False,
    trust: TrustFlag = False,
    json: Json = False,
) -> None:
    """Answer over HTTP, in the foreground, until Ctrl-C or SIGTERM; what is in flight is answered first."""
    if (model is None) == (model_uri is None):
        raise WrongUsage("serve takes one MODEL", remedy="likewise serve MODEL, or likewise serve -m MODEL")
    options = ServerOptions(
        host=host,
        port=port,
        workers=workers,
        token_file=token_file,
        insecure=insecure,
        deadline_s=deadline,
        queue_tokens=queue_tokens,
        cache_bytes=round(cache_mb * MB),
        body_limit_bytes=round(body_limit_mb * MB),
        header_timeout_s=header_timeout,
        read_timeout_s=read_timeout,
        access_log=access_log,
    )
    screen, asked = Screen(json), asked_precision(precision, exact)
    _serve(_found(str(model or model_uri), engine, asked, trust, screen), options, screen)


def _found(model: str, engine: str | None, precision: str | None, trust: bool, screen: Screen) -> api.Bundle:
    """The bundle, with that choice of engine, and a line where it could be a better one."""
    found = api.find(model, engine=engine, precision=precision, trust=trust, report=screen.note)
    if (line := api.advice(found)) is not None:
        screen.note(line)
    return found


def _serve(found: api.Bundle, options: ServerOptions, screen: Screen) -> None:
    from likewise.server.pages import curl_line
    from likewise.serving import served_model

    def listening(url: str) -> None:
        screen.note(f"{found.digest[:19]}… at {url} (Ctrl-C stops it); loading the model")

    def ready(url: str) -> None:
        if screen.as_json:
            screen.json({"url": url, "bundle": found.digest})
        else:
            screen.note(f"ready; the page is {url}/ and this asks it: {curl_line(served_model(found), url)}")

    api.serve(found, options=options, listening=listening, ready=ready)


def score(
    model: Model,
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="CSV, JSON lines or Parquet: a file, a folder, a glob, or the like at s3://.",
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUTPUT", help="A folder, or a .csv, .jsonl or .parquet file.")
    ],
    runner: Annotated[str, typer.Option(metavar="NAME", help=_help(ScoreOptions, "runner"))] = "local",
    column: Annotated[list[str] | None, typer.Option(metavar="INPUT=MODEL", help=_help(ScoreOptions, "column"))] = None,
    input_format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help=_help(ScoreOptions, "input_format"))
    ] = None,
    output_format: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help=_help(ScoreOptions, "format"))
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help=_help(ScoreOptions, "restart"))] = False,
    fail_on_quarantine: Annotated[
        float | None, typer.Option(metavar="PERCENT", help=_help(ScoreOptions, "fail_on_quarantine"))
    ] = None,
    budget: Annotated[int | None, typer.Option(metavar="TOKENS", help=_help(ScoreOptions, "budget"))] = None,
    window: Annotated[int, typer.Option(metavar="ROWS", help=_help(ScoreOptions, "window"))] = ScoreOptions().window,
    master: Annotated[str | None, typer.Option(metavar="URL", help=_help(ScoreOptions, "master"))] = None,
    runner_conf: Annotated[
        list[str] | None, typer.Option("--conf", metavar="KEY=VALUE", help=_help(ScoreOptions, "runner_conf"))
    ] = None,
    engine: EngineName = None,
    precision: Precision = None,
    exact: Exact = False,
    trust: TrustFlag = False,
    json: Json = False,
) -> None:
    """Score files: their rows in order with their predictions, bad rows aside with the reason.

    A job that was stopped goes on where it was when the same command is run again.
    """
    screen = Screen(json)
    options = ScoreOptions(
        runner=runner,
        column=parse_columns(column or ()),
        input_format=input_format,
        format=output_format,
        restart=restart,
        fail_on_quarantine=fail_on_quarantine,
        budget=budget,
        window=window,
        master=master,
        runner_conf=parse_conf(runner_conf or ()),
    )
    found = _found(model, engine, asked_precision(precision, exact), trust, screen)
    with JobProgress(source.rstrip("/").rpartition("/")[2] or source) as bar:
        report = api.score(found, source, output, options=options, progress=bar.show)
    screen.result({"output": output, **report.as_dict()}, "Scored", _facts(report, output, found.manifest.row_wise))


def _facts(report: Report, output: str, row_wise: bool) -> list[tuple[str, str]]:
    rate = report.rows_in / report.seconds if report.seconds else 0.0
    windowed = [("note", "rows were scored in windows, though the model does not declare them independent")]
    return [
        ("output", output),
        ("rows", f"{report.rows_in:,} in, {report.rows_ok:,} answered, {report.rows_quarantined:,} quarantined"),
        ("repeated", f"{report.duplicates:,} rows were answered by an equal row's answer"),
        ("engine", report.engine),
        ("time", f"{report.seconds:.1f} s, {rate:,.1f} rows/s, {report.tokens:,} tokens"),
        ("bundle", report.bundle),
        *([] if row_wise else windowed),
    ]
