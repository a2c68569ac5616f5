"""`deploy`, `list`, `status`, `predict`, `update`, `delete`: deployments over all targets."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from likewise import deployments
from likewise.cli.arguments import Choice, ModelArgument
from likewise.cli.flags import argument, flag
from likewise.cli.screen import Screen
from likewise.core.errors import DeployFailed, InputNotFound, OutputRefused, WrongUsage
from likewise.core.option_fields import coerce, described, parse_config
from likewise.core.spec import ModelSpec
from likewise.deployments import Planned
from likewise.targets import base
from likewise.targets.base import Receipt, Status
from likewise.targets.registry import names, open_target

Name = Annotated[str, argument("NAME", "What the deployment is called.")]
To = Annotated[str | None, flag("--to -t TARGET", "Where it stands, if that is not clear.")]
Config = Annotated[list[str] | None, flag("--config -C KEY=VALUE", "An option of the target; nested ones as JSON.")]
PlanFlag = Annotated[bool, flag("--plan", "Show what would be done, and do nothing.")]


def deploy(
    model: ModelArgument,
    to: Annotated[str, flag("--to -t TARGET", "local, ray-serve, ray-serve://host:port, …")],
    name: Annotated[str | None, flag("--name NAME", "What it will be called.")] = None,
    config: Config = None,
    plan: PlanFlag = False,
    output: Annotated[
        Path | None, flag("--output -o FILE", "With --plan: write it for the target's own tools (ray).")
    ] = None,
    bundle_at: Annotated[
        str | None, flag("--bundle-at PLACE", "With -o: where nodes read the bundle, a folder or s3://…")
    ] = None,
    rehearse: Annotated[
        bool, flag("--rehearse", "Carry the plan out on this machine, ask the model's example, delete it.")
    ] = False,
    keep: Annotated[bool, flag("--keep", "With --rehearse: until Ctrl-C, for tools of your own.")] = False,
    options: Annotated[bool, flag("--options", "Show the target's options, and do nothing.")] = False,
    *,
    choice: Choice,
    screen: Screen,
) -> None:
    """Deploy MODEL to TARGET. Cut off and run again, it is gone on with; where a step fails, all is taken back."""
    if options:
        return screen.options(f"Options of {to}, of {', '.join(names())}", described(open_target(to).Options))
    if name is None:
        raise WrongUsage("the deployment has no name", remedy="--name NAME")
    writer = _writer(to, output, bundle_at, plan)  # what is wrong is told before the model is bundled
    wanted = choice.find(model).spec()
    given = parse_config(config or [])
    if writer is not None and output is not None:
        text = writer(name, wanted, coerce(open_target(to).Options, given), bundle_at)
        return _write(output, text, name, wanted, screen)
    if rehearse:
        return _rehearse(wanted, to, name, given, keep, screen)
    planned = deployments.plan("create", name, to=to, model=wanted, options=given, roll_back_interrupted=not plan)
    return _show(planned, screen) if plan else _do(planned, screen)


def update(
    name: Name,
    model: Annotated[str | None, argument("[MODEL]", "Another model; its own if left out.")] = None,
    to: To = None,
    config: Config = None,
    to_previous: Annotated[bool, flag("--to-previous", "Back to what was before the last plan.")] = False,
    plan: PlanFlag = False,
    *,
    choice: Choice,
    screen: Screen,
) -> None:
    """Give a deployment another model, other options, or both; what is not named stays as it is."""
    if model is None and choice.pinned:
        raise WrongUsage("an engine is chosen for a model", remedy=f"likewise update {name} MODEL")
    wanted = None if model is None else choice.find(model).spec()
    planned = deployments.plan(
        "update",
        name,
        to=to,
        model=wanted,
        options=parse_config(config or []),
        previous=to_previous,
        roll_back_interrupted=not plan,
    )
    return _show(planned, screen) if plan else _do(planned, screen)


def delete(name: Name, to: To = None, plan: PlanFlag = False, *, screen: Screen) -> None:
    """Take a deployment down, with all that it holds."""
    planned = deployments.plan("delete", name, to=to, roll_back_interrupted=not plan)
    return _show(planned, screen) if plan else _do(planned, screen)


def list_(
    to: Annotated[str | None, flag("--to -t TARGET", "On this target, with what others have deployed there.")] = None,
    *,
    screen: Screen,
) -> None:
    """What has been deployed from here, on every target, and what costs money for as long as it stands."""
    receipts = deployments.deployments(to)
    if screen.as_json:
        screen.json({"deployments": [receipt.as_dict() for receipt in receipts]})
        return
    if not receipts:
        screen.note("nothing is deployed; likewise deploy MODEL --to TARGET --name NAME")
    rows = [
        (each.name, each.target, each.model.source, each.model.digest[:19], each.updated, each.shown().get("costs", ""))
        for each in receipts
    ]
    screen.table("Deployments", ("name", "target", "model", "bundle", "since", "costs"), rows)


def status(name: Name, to: To = None, *, screen: Screen) -> None:
    """How a deployment is now, as its place says; exit code 1 where it does not answer."""
    receipt, now = deployments.status(name, to=to)
    screen.result({"receipt": receipt.as_dict(), "status": now.as_dict()}, name, _facts(receipt, now))
    if now.state in ("failing", "gone"):
        raise typer.Exit(1)


def predict(
    name: Name,
    source: Annotated[str, argument("INPUT", "A request: a .json or .csv file, - for stdin, or JSON itself.")],
    to: To = None,
    later: Annotated[bool, flag("--async", "By way of the place's queue, for an endpoint that answers later.")] = False,
    timeout: Annotated[float, flag("--timeout SECONDS", "With --async: to wait for the answer.", min=0.001)] = 900.0,
    *,
    screen: Screen,  # noqa: ARG001  the answer is JSON in any case
) -> None:
    """Ask a deployment, in any form that its `/invocations` takes."""
    body, kind = _request(source)
    answer = deployments.predict(name, body, kind, to=to, later_s=timeout if later else None)
    sys.stdout.write(answer.body.decode(errors="replace").rstrip("\n") + "\n")
    if answer.status >= 400:
        raise DeployFailed(f"{name} answered {answer.status}", remedy="its answer above says why")


def _writer(to: str, output: Path | None, bundle_at: str | None, plan: bool) -> Callable[..., str] | None:
    """What writes the file that is asked for; None where none is. WrongUsage where the target has no such file."""
    target = open_target(to)
    if output is None:
        if bundle_at is not None:
            raise WrongUsage("--bundle-at goes with --plan -o FILE", remedy="add them, or leave it out")
        return None
    if not plan:
        raise WrongUsage("-o writes what would be done, and does nothing", remedy="add --plan, or leave out -o")
    if not isinstance(target, base.WritesFile):
        raise WrongUsage(f"{to} has no file that says a deployment", remedy="leave out -o; ray-serve has one")
    return target.written


def _write(output: Path, text: str, name: str, model: ModelSpec, screen: Screen) -> None:
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputRefused(f"{output}: {error.strerror}", remedy="name a file in a folder that is there") from error
    facts = {"file": str(output), "bundle": model.digest}
    screen.result({"name": name, **facts}, name, facts.items())


def _request(source: str) -> tuple[bytes, str]:
    if source == "-":
        return sys.stdin.buffer.read(), deployments.JSON
    if source.lstrip().startswith(("{", "[")):
        return source.encode(), deployments.JSON
    try:
        return Path(source).read_bytes(), "text/csv" if source.endswith(".csv") else deployments.JSON
    except OSError as error:
        raise InputNotFound(f"{source}: {error.strerror}", remedy="name a .json or .csv file, - or JSON") from error


def _rehearse(model: ModelSpec, to: str, name: str, given: Mapping[str, str], keep: bool, screen: Screen) -> None:
    """What was deployed, and what it answered to the model's own example."""
    began = time.monotonic()

    def tell(step: base.PlanStep) -> None:
        screen.note(f"{time.monotonic() - began:5.1f} s  {step.about}")

    with deployments.rehearsed(model, to, name, given, on_step=tell, progress=screen.note) as (receipt, stage):
        for caution in stage.cautions:
            screen.note(caution)
        answered = _example(receipt)
        said = {"receipt": receipt.as_dict(), "answer": answered, "endpoint_url": stage.url}
        facts = [("rehearsed in", f"{time.monotonic() - began:.1f} s"), ("bundle", model.digest)]
        screen.result(said, name, [*facts, ("its example's answer", answered), ("endpoint URL", stage.url)])
        if keep:
            screen.note(f"{name} answers at --endpoint-url {stage.url} until Ctrl-C")
            with suppress(KeyboardInterrupt):
                threading.Event().wait()


def _example(receipt: Receipt) -> str:
    """Its answer to the request that was logged with the model; DeployFailed where it refuses that."""
    example = receipt.model.folder / "model" / "serving_input_example.json"
    if not example.is_file():
        return "the model was logged without an example, so it was not asked"
    answer = deployments.predict(receipt.name, example.read_bytes(), to=receipt.target)
    said = answer.body.decode(errors="replace").strip()
    if answer.status >= 400:
        raise DeployFailed(f"it answered its own example with {answer.status}: {said}", remedy="mend the model")
    return said


def _do(planned: Planned, screen: Screen) -> None:
    for finding in planned.findings:
        screen.note(f"{finding.cause}; {finding.remedy}")
    receipt = deployments.execute(planned, lambda step: screen.note(step.about), screen.note)
    plan = planned.plan
    if receipt is None:
        screen.result({"deleted": plan.name, "target": plan.target}, "Deleted", [(plan.name, plan.target)])
        return
    screen.result(receipt.as_dict(), plan.name, _facts(receipt, None))


def _show(planned: Planned, screen: Screen) -> None:
    """The plan as data, or as a table."""
    plan, findings = planned.plan, [asdict(each) for each in planned.findings]
    if screen.as_json:
        screen.json({**plan.as_dict(), "key": plan.key, "findings": findings})
        return
    for finding in planned.findings:
        screen.note(f"{finding.cause}; {finding.remedy}")
    rows = [(step.id, step.about) for step in plan.steps]
    screen.table(f"{plan.verb} {plan.name} on {plan.target}", ("step", "does"), rows)
    screen.note("--json shows what each step is given")


def _facts(receipt: Receipt, now: Status | None) -> list[tuple[str, str]]:
    """What stands there by the receipt; with `now`, what its place says in its stead."""
    model = receipt.model
    facts = {"target": receipt.target, "bundle": model.digest, "made from": model.source, **receipt.shown()}
    if now is not None:
        facts = {"state": f"{now.state} {now.about}".strip(), **facts, **now.details}
        facts |= {"bundle": now.bundle} if now.bundle else {}
    lines = [(key, str(value)) for key, value in facts.items() if value not in (None, "", [], {})]
    return [*lines, ("since", receipt.updated)]
