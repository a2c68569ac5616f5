"""Finds deployments by name: what is recorded about them here, and what their targets report."""

from __future__ import annotations

from collections.abc import Sequence

from likewise.core.errors import NotDeployed, WrongUsage
from likewise.core.option_fields import nearest
from likewise.receipts import Receipts, Record
from likewise.targets.base import Live, Receipt, Target
from likewise.targets.listing import Listed, listed_record
from likewise.targets.registry import open_target


def all_on(to: str | None) -> list[Listed]:
    """The deployments recorded here, by name; to: those on this target, including the ones of other users."""
    receipts = Receipts()
    known = [listed_record(record, receipts) for record in receipts.records()]
    if to is None:
        return known
    target = open_target(to)
    own = {each.name: each for each in known if each.target == target.uri}
    others = {each.name: Listed(each.target, each.name, each) for each in _found(target) if each.name not in own}
    return [each for _, each in sorted({**own, **others}.items())]


def current(receipts: Receipts, name: str, to: str | None) -> Receipt:
    """The deployment's receipt, from its target if none is recorded here.  Raises NotDeployed, WrongUsage."""
    uri = None if to is None else open_target(to).uri
    record = recorded(receipts, name, uri)
    known = None if record is None else listed_record(record, receipts)
    if known is not None and known.receipt is not None:
        return known.receipt
    place = uri if known is None else known.target
    unfinished = known is not None and known.unfinished is not None
    if place is not None and not unfinished and (reported := existing(place, name)) is not None:
        return reported
    if known is not None:
        raise NotDeployed(f"{name!r} on {known.target}: {known.state}", remedy=known.remedy)
    where = f" on {uri}" if uri else ""
    records = receipts.records()
    elsewhere = [each.target for each in records if each.name == name]
    similar = f"it is on {', '.join(elsewhere)}; " if elsewhere else nearest(name, [each.name for each in records])
    remedy = f"{similar}`likewise list` shows all deployments"
    raise NotDeployed(f"there is no deployment named {name!r}{where}", remedy=remedy)


def recorded(receipts: Receipts, name: str, uri: str | None) -> Record | None:
    """What is recorded about the deployment, None if nothing is.  Raises WrongUsage if there are several."""
    matches = [each for each in receipts.records() if each.name == name and uri in (None, each.target)]
    if len(matches) > 1:
        targets = ", ".join(each.target for each in matches)
        raise WrongUsage(
            f"{name!r} is deployed on several targets: {targets}",
            remedy="choose one with --to TARGET; for verify, use NAME@TARGET",
        )
    return matches[0] if matches else None


def existing(uri: str, name: str) -> Receipt | None:
    """The deployment according to its target, which may be another user's."""
    return next((each for each in _found(open_target(uri)) if each.name == name), None)


def _found(target: Target) -> Sequence[Receipt]:
    return target.found() if isinstance(target, Live) else ()
