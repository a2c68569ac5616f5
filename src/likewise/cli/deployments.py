"""Commands that change and query deployments on any target: `deploy`, `update`, `delete`, `predict`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from likewise import deployments
from likewise.cli import completion
from likewise.cli.answers import unfolded
from likewise.cli.arguments import Choice, ModelArgument
from likewise.cli.flags import argument, flag
from likewise.cli.operations import Name, To
from likewise.cli.screen import Screen
from likewise.core.errors import DeployFailed, InputNotFound, OutputRefused, WrongUsage
from likewise.core.option_fields import coerce, described, parse_config
from likewise.core.spec import ModelSpec
from likewise.core.stdout import stdout
from likewise.targets import base, planning
from likewise.targets.base import Receipt
from likewise.targets.facts import facts_of
from likewise.targets.planning import Planned
from likewise.targets.registry import names, open_target
from likewise.targets.responses import error_of
from likewise.wire.content import PARQUET

Config = Annotated[
    list[str] | None,
    flag(
        "--config -C KEY=VALUE",
        "Set an option of the target; give nested values as JSON. Repeatable.",
        complete=completion.config,
    ),
]
CONTENT_TYPES = {".csv": "text/csv", ".parquet": PARQUET}
PlanFlag = Annotated[bool, flag("--plan", "Show the steps without running them.")]


def deploy(
    model: ModelArgument,
    to: Annotated[
        str | None,
        flag(
            "--to -t TARGET",
            "Where to deploy (required): local, container, ray-serve (or ray), ray-serve://HOST:PORT, "
            "sagemaker:/REGION, …",
            complete=completion.target,
        ),
    ] = None,
    name: Annotated[str | None, flag("--name NAME", "Name of the new deployment; required without --options.")] = None,
    config: Config = None,
    plan: PlanFlag = False,
    output: Annotated[
        Path | None,
        flag(
            "--output -o FILE",
            "With --plan: write a config file for the target's own tools (only Ray Serve) instead of showing steps.",
        ),
    ] = None,
    bundle_at: Annotated[
        str | None,
        flag("--bundle-at PLACE", "With -o: folder or s3:// URL from which the cluster's nodes read the bundle."),
    ] = None,
    image: Annotated[
        str | None,
        flag("--image IMAGE", "With -o: write a RayService for KubeRay on Kubernetes, whose pods run this image."),
    ] = None,
    rehearse: Annotated[
        bool,
        flag(
            "--rehearse",
            "Deploy to an emulated target on this machine, send the model's input example, then delete the deployment.",
        ),
    ] = False,
    keep: Annotated[
        bool, flag("--keep", "With --rehearse: keep the deployment running until Ctrl-C, to try other tools on it.")
    ] = False,
    options: Annotated[bool, flag("--options", "Show the target's options and exit.")] = False,
    *,
    choice: Choice,
    screen: Screen,
) -> None:
    """Deploy MODEL to TARGET. Rolls back if a step fails.

    If interrupted, `likewise list` shows it as unfinished: the same command resumes it, `likewise delete` removes it.
    """
    if to is None:
        raise WrongUsage("no target is given", remedy=f"add --to TARGET; targets: {', '.join(names())}")
    if options:
        title = f"Options of {to} (targets: {', '.join(names())})"
        return screen.options(title, described(open_target(to).Options))
    if name is None:
        raise WrongUsage("the deployment has no name", remedy="add --name NAME")
    # reports invalid flags before the model is bundled
    writer = _file_writer(to, output, {"--bundle-at": bundle_at, "--image": image}, plan)
    target_options = parse_config(config or [])
    if writer is None and not rehearse:
        planning.check("create", name, to, target_options, executed=not plan)
    spec = choice.find(model, screen.note).spec()
    if writer is not None and output is not None:
        text = writer(name, spec, coerce(open_target(to).Options, target_options), bundle_at, image)
        return _write_file(output, text, name, spec, screen)
    if rehearse:
        return _rehearse(spec, to, name, target_options, keep, screen)
    planned = planning.plan("create", name, to=to, model=spec, options=target_options, roll_back_interrupted=not plan)
    return _show_plan(planned, screen) if plan else _apply(planned, screen)


def update(
    name: Name,
    model: Annotated[str | None, argument("[MODEL]", "New model; by default the model stays the same.")] = None,
    to: To = None,
    config: Config = None,
    revision: Annotated[
        int | None,
        flag("--revision N", "Return to the model and options of revision N of `likewise history`.", min=1),
    ] = None,
    to_previous: Annotated[bool, flag("--to-previous", "Short for the revision before the last change.")] = False,
    plan: PlanFlag = False,
    *,
    choice: Choice,
    screen: Screen,
) -> None:
    """Change a deployment's model, its options, or both. Everything else stays unchanged."""
    if to is not None and to.isdecimal():
        raise WrongUsage(
            f"--to takes a target, not the revision {to}", remedy=f"run: likewise update {name} --revision {to}"
        )
    if model is None and (choice.pinned or choice.env or choice.allow_versions):
        raise WrongUsage(
            "--engine, --precision, --exact, --allow-versions and --env need a MODEL",
            remedy=f"run: likewise update {name} MODEL …",
        )
    target_options = parse_config(config or [])
    spec = None
    if model is not None:
        planning.check("update", name, to, target_options, executed=not plan)
        spec = choice.find(model, screen.note).spec()
    planned = planning.plan(
        "update",
        name,
        to=to,
        model=spec,
        options=target_options,
        previous=to_previous,
        revision=revision,
        roll_back_interrupted=not plan,
    )
    return _show_plan(planned, screen) if plan else _apply(planned, screen)


def delete(name: Name, to: To = None, plan: PlanFlag = False, *, screen: Screen) -> None:
    """Delete a deployment and all its resources."""
    planned = planning.plan("delete", name, to=to, roll_back_interrupted=not plan)
    return _show_plan(planned, screen) if plan else _apply(planned, screen)


def predict(
    name: Name,
    source: Annotated[
        str, argument("INPUT", "Request body: a .json, .csv or .parquet file, - for stdin, or JSON text ({…}).")
    ],
    to: To = None,
    later: Annotated[
        bool, flag("--async", "Send the request to an asynchronous SageMaker endpoint and wait for the result.")
    ] = False,
    timeout: Annotated[float, flag("--timeout SECONDS", "With --async: how long to wait.", min=0.001)] = 900.0,
    *,
    screen: Screen,
) -> None:
    """Send a request to a deployment, in any format that its `/invocations` endpoint accepts.

    Prints the response unchanged; on a terminal without --json, as a table with one line per row, in
    which texts are shortened if they do not fit.
    """
    body, content_type = _request(source)
    response = deployments.predict(name, body, content_type, to=to, later_s=timeout if later else None)
    failed = response.status >= 400
    if not failed or not (screen.as_json or screen.out.is_terminal):  # else the error has its message
        text = response.body.decode(errors="replace").rstrip("\n")
        table = unfolded(text) if screen.out.is_terminal and not screen.as_json else None
        if table is not None:
            screen.table("", *table, whole=1)
        else:
            stdout().write(text + "\n")
    if failed:
        raise error_of(name, response)


def _file_writer(
    to: str, output: Path | None, only_for_files: Mapping[str, str | None], plan: bool
) -> Callable[..., str] | None:
    """The target's function that writes a deployment as a config file; None without --output.

    only_for_files: flags that need --output.  Raises WrongUsage if the target does not support such files, or if the
    flags do not fit together.
    """
    target = open_target(to)
    if output is None:
        for each, value in only_for_files.items():
            if value is not None:
                raise WrongUsage(f"{each} requires --plan and -o FILE", remedy=f"add both, or remove {each}")
        return None
    if not plan:
        raise WrongUsage("-o requires --plan, because it writes a file instead of deploying", remedy="add --plan")
    if not isinstance(target, base.WritesFile):
        raise WrongUsage(
            f"{to} does not support deployment files", remedy="remove -o, or deploy to ray-serve, which supports them"
        )
    return target.written


def _write_file(output: Path, text: str, name: str, model: ModelSpec, screen: Screen) -> None:
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputRefused(
            f"{output}: {error.strerror}", remedy="choose a file that can be written, in an existing folder"
        ) from error
    facts = {"file": str(output), "bundle": model.digest, "build": model.build}
    screen.result({"name": name, **facts}, name, facts.items())


def _request(source: str) -> tuple[bytes, str]:
    """The request body that INPUT stands for, and its content type."""
    if source == "-":
        return sys.stdin.buffer.read(), deployments.JSON
    if source.lstrip().startswith(("{", "[")):
        return source.encode(), deployments.JSON
    try:
        return Path(source).read_bytes(), CONTENT_TYPES.get(Path(source).suffix.lower(), deployments.JSON)
    except OSError as error:
        raise InputNotFound(
            f"{source}: {error.strerror}", remedy="pass a .json, .csv or .parquet file, - for stdin, or JSON text"
        ) from error


def _rehearse(model: ModelSpec, to: str, name: str, options: Mapping[str, str], keep: bool, screen: Screen) -> None:
    """Deploy to an emulated target, send the model's input example, and show the receipt and the response."""
    start = time.monotonic()

    def show_step(step: base.PlanStep) -> None:
        screen.note(f"{time.monotonic() - start:5.1f} s  {step.about}")

    with deployments.rehearsed(model, to, name, options, on_step=show_step, progress=screen.note) as (receipt, stage):
        for caution in stage.cautions:
            screen.note(caution)
        response = _send_example(receipt)
        document = {"receipt": receipt.as_dict(), "answer": response, "endpoint_url": stage.url}
        facts = [
            ("rehearsed in", f"{time.monotonic() - start:.1f} s"),
            ("bundle", model.digest),
            ("build", model.build),
        ]
        screen.result(document, name, [*facts, ("response to example", response), ("endpoint URL", stage.url)])
        if keep:
            screen.note(f"{name} is available at --endpoint-url {stage.url} until Ctrl-C")
            with suppress(KeyboardInterrupt):
                threading.Event().wait()


def _send_example(receipt: Receipt) -> str:
    """The deployment's response to the input example logged with the model; DeployFailed for an error status."""
    example = receipt.model.folder / "model" / "serving_input_example.json"
    if not example.is_file():
        return "not sent: the model was logged without an input example"
    target = open_target(receipt.target)
    if not isinstance(target, base.Live):
        return "not sent: deployments on this target serve no requests"
    response = target.predict(receipt, example.read_bytes(), deployments.JSON)
    text = response.body.decode(errors="replace").strip()
    if response.status >= 400:
        raise DeployFailed(
            f"the model's own input example got status {response.status}: {text}",
            remedy="fix the model or the example, then log it again",
        )
    return text


def _apply(planned: Planned, screen: Screen) -> None:
    for finding in planned.findings:
        screen.note(str(finding))
    with screen.working():
        receipt = deployments.execute(planned, lambda step: screen.note(step.about), screen.note)
    plan = planned.plan
    if receipt is None:
        screen.result({"deleted": plan.name, "target": plan.target}, "Deleted", [(plan.name, plan.target)])
        return
    screen.result(receipt.as_dict(), plan.name, facts_of(receipt))


def _show_plan(planned: Planned, screen: Screen) -> None:
    """Print the plan as JSON or as a table."""
    plan, findings = planned.plan, [asdict(each) for each in planned.findings]
    if screen.as_json:
        screen.json({**plan.as_dict(), "key": plan.key, "findings": findings})
        return
    for finding in planned.findings:
        screen.note(str(finding))
    rows = [(step.id, step.about) for step in plan.steps]
    screen.table(f"{plan.verb} {plan.name} on {plan.target}", ("step", "description"), rows)
    screen.note("use --json to see the arguments of each step")
