"""The history of a deployment: a revision for each change of its model or options, also for those that failed."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from likewise.bundles.open import open_exactly
from likewise.core.errors import LikewiseError, ModelNotFound, WrongUsage
from likewise.core.spec import ModelSpec
from likewise.receipts import Receipts
from likewise.targets.base import JsonValue, Plan, Receipt

DEPLOYED, ROLLED_BACK = "deployed", "rolled back"


@dataclass(frozen=True, slots=True)
class Revision:
    """A version of a deployment.

    at: ISO 8601, UTC.  outcome: DEPLOYED or ROLLED_BACK.  cause: of a failure.  before: the model and options of the
    revision that it replaced, None for the first.  user: who made the change, empty if that is not recorded.
    returns_to: the number of the latest earlier revision that was deployed with the same model and options, if any.
    """

    number: int
    at: str
    model: ModelSpec
    options: Mapping[str, JsonValue]
    outcome: str = DEPLOYED
    cause: str = ""
    before: Mapping[str, JsonValue] | None = None
    user: str = ""
    returns_to: int | None = None

    @property
    def changes(self) -> dict[str, JsonValue]:
        """What differs from the revision that it replaced: `model`, and each option by name; nothing for the first."""
        if self.before is None:
            return {}
        old: Mapping[str, JsonValue] = self.before["options"]
        names = [name for name in {**old, **self.options} if old.get(name) != self.options.get(name)]
        same = ModelSpec.from_dict(self.before["model"]).portable() == self.model.portable()
        changed = {} if same else {"model": self.model.source or self.model.digest}
        return {**changed, **{name: self.options.get(name) for name in names}}

    def deploys(self, model: ModelSpec, options: Mapping[str, JsonValue]) -> bool:
        """Whether it was deployed, with this model and these options."""
        same = self.outcome == DEPLOYED and self.model.portable() == model.portable()
        return same and dict(self.options) == dict(options)

    def as_dict(self) -> dict[str, JsonValue]:
        """The revision as JSON."""
        names = ("number", "at", "user", "outcome", "cause", "changes", "returns_to")
        document = {name: getattr(self, name) for name in names}
        return {**document, "model": self.model.as_dict(), "options": dict(self.options)}


def history_of(receipts: Receipts, receipt: Receipt) -> list[Revision]:
    """The deployment's revisions, the newest last; its current version if there is no record of them."""
    recorded = receipts.revisions(receipt.target, receipt.name)
    if not recorded:
        recorded = [(1, _document(receipt.as_dict(), receipt.updated))]
    revisions: list[Revision] = []
    current: Mapping[str, JsonValue] | None = None
    for number, document in recorded:
        about = {name: document[name] for name in ("at", "outcome", "cause")}
        model = ModelSpec.from_dict(document["model"])
        about |= {"before": current, "user": document.get("user", "")}  # earlier versions recorded no user
        same = (each for each in reversed(revisions) if each.deploys(model, document["options"]))
        about["returns_to"] = next((each.number for each in same), None)
        revisions.append(Revision(number, model=model, options=document["options"], **about))
        if document["outcome"] == DEPLOYED:
            current = {"model": document["model"], "options": document["options"]}
    return revisions


def new_revisions(receipts: Receipts, plan: Plan, cause: str = "") -> list[dict[str, JsonValue]]:
    """What to record of a finished run of `plan`; nothing if it changed neither model nor options.

    cause: of the failure, after which it was rolled back.  The first record of a deployment of an earlier version of
    Likewise is preceded by one of what was deployed until then.
    """
    if plan.model is None:
        return []
    before = receipts.get(plan.target, plan.name)
    planned = {"model": plan.model.as_dict(), "options": dict(plan.options)}
    if before is None:
        return [] if cause else [_document(planned, _now(), user=_user())]
    first = [] if receipts.revisions(plan.target, plan.name) else [_document(before, before["updated"])]
    if not cause and is_repair(plan, before):
        return first
    return [*first, _document(planned, _now(), cause, _user())]


def is_repair(plan: Plan, before: Mapping[str, Any]) -> bool:
    """Whether a plan deploys what is deployed already, perhaps from another folder.  before: the receipt as JSON."""
    if plan.model is None or dict(plan.options) != before["options"]:
        return False
    model = ModelSpec.from_dict(before["model"])
    return (model.portable(), model.python) == (plan.model.portable(), plan.model.python)


def former(
    receipts: Receipts, current: Receipt | None, previous: bool, revision: int | None
) -> tuple[ModelSpec, Mapping[str, object]] | None:
    """The model and options of the former version to return to, None if none is requested."""
    if current is None or (revision is None and not previous):
        return None
    if revision is not None and previous:
        raise WrongUsage("the previous version and a revision are given", remedy="give only one of them")
    if revision is not None:
        return _of_revision(receipts, current, revision)
    if current.previous is None:
        raise WrongUsage("there is no previous version to restore", remedy="name a model: likewise update NAME MODEL")
    return ModelSpec.from_dict(current.previous["model"]), current.previous["options"]


def _of_revision(receipts: Receipts, current: Receipt, number: int) -> tuple[ModelSpec, Mapping[str, object]]:
    """Its model and options.  Raises WrongUsage if there is none, ModelNotFound if its bundle is not available."""
    revisions = {each.number: each for each in history_of(receipts, current)}
    if number not in revisions:
        known = ", ".join(map(str, revisions))
        raise WrongUsage(f"{current.name!r} has no revision {number}", remedy=f"its revisions: {known}")
    model = revisions[number].model
    kept = [current.model.key, *([ModelSpec.from_dict(current.previous["model"]).key] if current.previous else [])]
    if model.key not in kept:  # those two are available at the target
        try:
            open_exactly(model)
        except LikewiseError as error:
            again = f"bundle it again: likewise update {current.name} {model.source}"
            raise ModelNotFound(
                f"the bundle of revision {number} is not available: {error.cause}",
                remedy=again if model.source else f"restore it at {model.folder}, or update to another model",
            ) from error
    return model, revisions[number].options


def _document(deployed: Mapping[str, Any], at: str, cause: str = "", user: str = "") -> dict[str, JsonValue]:
    about = {"at": at, "user": user, "outcome": ROLLED_BACK if cause else DEPLOYED, "cause": cause}
    return {**about, "model": deployed["model"], "options": deployed["options"]}


def _user() -> str:
    """The name of the user of this process; its number if it has none, as in some containers."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # the latter before Python 3.13
        return str(os.getuid())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
