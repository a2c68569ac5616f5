"""Deployments as `likewise list` shows them, also those that are unfinished or whose record is damaged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime

from likewise.core.errors import LikewiseError
from likewise.core.spec import ModelSpec
from likewise.dataplane import DaemonThread
from likewise.receipts import Receipts, Record
from likewise.targets.apply import busy, unfinished_plan
from likewise.targets.base import Live, Plan, Receipt, Status, Verb
from likewise.targets.registry import open_target

STATE_S = 10.0  # in which a target has to report a deployment's state
UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Listed:
    """A deployment as `list` shows it.

    receipt: None if its creation is unfinished, or if its record is damaged.  unfinished: the plan of a run that is in
    progress (busy) or was interrupted.  unreadable: why its record cannot be read; else empty.  status: what its target
    reports, None without a query or a response.  unreachable: why there is no response, and what to do; else empty.
    """

    target: str
    name: str
    receipt: Receipt | None
    unfinished: Plan | None = None
    busy: bool = False
    unreadable: str = ""
    status: Status | None = None
    unreachable: str = ""

    @property
    def state(self) -> str:
        """Its state in a few words: as its target reports it, or what is not in order; empty if it is not known."""
        reported = UNREACHABLE if self.unreachable else self.status.state if self.status is not None else ""
        if self.unfinished is not None:
            run = f"{self.unfinished.verb} {'in progress' if self.busy else 'unfinished'}"
            return run if reported in ("", "ready") else f"{run}, {reported}"
        return "record unreadable" if self.unreadable else reported

    @property
    def remedy(self) -> str:
        """What to do about the state; empty if it is in order."""
        delete = f"likewise delete {self.name} --to {self.target}"
        if self.unfinished is not None:
            return (
                "wait until it has finished" if self.busy else to_finish(self.unfinished.verb, self.name, self.target)
            )
        if self.unreadable:
            return f"{self.unreadable}; `{delete}` deletes the deployment and its record"
        if self.unreachable:
            return self.unreachable
        if self.status is not None and self.status.state == "gone":
            return f"{self.status.about or self.status.state}; `{delete}` deletes its record"
        if self.status is not None and self.status.state == "failing":
            return f"{self.status.about or self.status.state}; {next_steps(self.name, self.receipt)}"
        return ""

    @property
    def model(self) -> ModelSpec | None:
        """What is deployed, or what the unfinished run deploys; None if it is not known."""
        if self.receipt is not None:
            return self.receipt.model
        return self.unfinished.model if self.unfinished is not None else None

    @property
    def url(self) -> str:
        """Its URL by its target, else by its receipt; empty if it has none."""
        recorded = self.receipt.shown().get("url") if self.receipt is not None else None
        return (self.status.url if self.status is not None else None) or recorded or ""

    @property
    def engine(self) -> str:
        """The label of the engine that serves; empty if it is not known."""
        return (self.status.engine if self.status is not None else None) or ""

    @property
    def age_s(self) -> float | None:
        """Seconds since its creation, None if that is not recorded."""
        try:
            created = datetime.fromisoformat(self.receipt.created if self.receipt is not None else "")
        except (ValueError, TypeError):
            return None
        return max(0.0, time.time() - created.timestamp())

    def as_dict(self) -> dict[str, object]:
        """The receipt as JSON, and `state`, `remedy`, `url`, `engine`, `age_s`, and what its target reports."""
        document: dict[str, object] = {"target": self.target, "name": self.name}
        if self.receipt is not None:
            document = self.receipt.as_dict()
        elif self.unfinished is not None:
            plan = self.unfinished.as_dict()
            document |= {"model": plan["model"], "options": plan["options"]}
        known = {name: getattr(self, name) for name in ("state", "remedy", "url", "engine", "age_s")}
        return {**document, **known, "status": self.status and self.status.as_dict()}


def with_states(listed: Sequence[Listed]) -> list[Listed]:
    """The deployments, each with the status that its target reports within STATE_S, all queried at the same time."""
    deadline = time.monotonic() + STATE_S
    pending = [_status(each) for each in listed]
    return [_reported(each, future, deadline) for each, future in zip(listed, pending, strict=True)]


def _status(listed: Listed) -> Future[Status | None] | None:
    """The status in the future, in a thread that the process does not wait for; None if there is nothing to query."""
    if listed.receipt is None:
        return None
    thread = DaemonThread("likewise-status")
    future = thread.submit(_queried, listed.receipt)
    thread.shutdown()
    return future


def _queried(receipt: Receipt) -> Status | None:
    target = open_target(receipt.target)
    return target.status(receipt) if isinstance(target, Live) else None


def _reported(listed: Listed, future: Future[Status | None] | None, deadline: float) -> Listed:
    if future is None:
        return listed
    try:
        return replace(listed, status=future.result(max(0.0, deadline - time.monotonic())))
    except TimeoutError:
        longer = f"`likewise status {listed.name} --to {listed.target}` waits longer"
        return replace(listed, unreachable=f"no response within {STATE_S:g} s; {longer}")
    except LikewiseError as error:
        return replace(listed, unreachable=f"{error.cause}; {error.remedy}")
    except Exception as error:  # noqa: BLE001  a damaged deployment must not end the list
        return replace(listed, unreachable=f"{type(error).__name__}: {error}")


def listed_record(record: Record, receipts: Receipts) -> Listed:
    """The content of a record, however damaged it is."""
    unreadable = record.unreadable
    receipt, plan = None, unfinished_plan(record.run)
    if record.run is not None and plan is None:
        unreadable = unreadable or "its plan is damaged"
    try:
        receipt = None if record.receipt is None else Receipt.from_dict(record.receipt)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        unreadable = unreadable or f"its record is damaged: {type(error).__name__}: {error}"
    running = plan is not None and busy(receipts, record.target, record.name)
    return Listed(record.target, record.name, receipt, plan, running, unreadable)


def next_steps(name: str, receipt: Receipt | None) -> str:
    """What to do about a deployment that is failing."""
    former = "" if receipt is None or receipt.previous is None else f"; to return: likewise update {name} --to-previous"
    return f"see `likewise logs {name}` and `likewise history {name}`{former}"


def to_finish(verb: Verb, name: str, target: str) -> str:
    """How to complete an interrupted run, or to undo it."""
    if verb == "delete":
        return f"`likewise delete {name} --to {target}` completes it"
    if verb == "create":
        again = "run the same `likewise deploy` again to complete it"
        return f"{again}, or remove everything with: likewise delete {name} --to {target}"
    return f"run the same command again to complete it, or undo it with: likewise update {name} --to {target}"
