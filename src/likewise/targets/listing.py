"""Deployments as `likewise list` shows them, also those that are unfinished or whose record is damaged."""

from __future__ import annotations

from dataclasses import dataclass

from likewise.receipts import Receipts, Record
from likewise.targets.apply import busy, unfinished_plan
from likewise.targets.base import Plan, Receipt, Verb


@dataclass(frozen=True)
class Listed:
    """A deployment as `list` shows it.

    receipt: None if its creation is unfinished, or if its record is damaged.  unfinished: the plan of a run that is in
    progress (busy) or was interrupted.  unreadable: why its record cannot be read; else empty.  broken: what its target
    reports if it is not serving, or cannot report its state; else empty, also without a query of the target.
    """

    target: str
    name: str
    receipt: Receipt | None
    unfinished: Plan | None = None
    busy: bool = False
    unreadable: str = ""
    broken: str = ""

    @property
    def state(self) -> str:
        """What is not in order, in two words; else empty."""
        if self.unfinished is not None:
            return f"{self.unfinished.verb} {'in progress' if self.busy else 'unfinished'}"
        return "record unreadable" if self.unreadable else "broken" if self.broken else ""

    @property
    def remedy(self) -> str:
        """What to do about the state; empty if there is none."""
        delete = f"likewise delete {self.name} --to {self.target}"
        if self.unfinished is not None:
            return "wait until it has finished" if self.busy else to_finish(self.unfinished.verb, delete)
        if self.unreadable:
            return f"{self.unreadable}; `{delete}` deletes the deployment and its record"
        return f"{self.broken}; `{delete}` deletes it" if self.broken else ""

    def as_dict(self) -> dict[str, object]:
        """The receipt as JSON, and `state` and `remedy`."""
        document: dict[str, object] = {"target": self.target, "name": self.name}
        if self.receipt is not None:
            document = self.receipt.as_dict()
        elif self.unfinished is not None:
            plan = self.unfinished.as_dict()
            document |= {"model": plan["model"], "options": plan["options"]}
        return {**document, "state": self.state, "remedy": self.remedy}


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


def to_finish(verb: Verb, delete: str) -> str:
    """How to complete an interrupted run, or to undo it.  delete: the command that deletes the deployment."""
    if verb == "delete":
        return f"`{delete}` completes it"
    command = "deploy" if verb == "create" else "update"
    return f"run the same `likewise {command}` again to complete it, or remove everything with: {delete}"
