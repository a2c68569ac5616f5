"""Whether a new version that gets a share of the requests is promoted, rolled back, or watched on.

The new version fails a request only where the old one then answers that same request: each is its own control, so a
client's mistakes and a cluster's bad minutes count for nobody.  Slow is what takes longer than `slower` times the old
version's quantile of the same time: were the new one no slower than that, at most half of its answers would take longer
than so many times the median, and at most 5 % longer than so many times the 95th percentile.

So both are shares with a limit, and one bound serves: Chernoff's, which holds for any number of requests.  It is looked
at after every one of them, so the chance of an error is divided over all n as ALPHA / (n (n + 1)), whose sum is ALPHA:
a version that keeps its limits is taken back before the end of the watch with a probability of at most 1 % for each of
the three limits.  (The old version's quantiles are taken as known; they come of at least ENOUGH answers.)
At the end there is no more time to be sure: then the bare shares decide, and in doubt the old version stays.

Sources: H. Chernoff, "A measure of asymptotic efficiency for tests of a hypothesis based on the sum of observations",
1952 (the bound, with the divergence of two shares); S. R. Howard et al., "Time-uniform, nonparametric, nonasymptotic
confidence sequences", 2021 (why many looks need it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from likewise.targets.ray.version_stats import Side

ALPHA = 0.01
ENOUGH = 20  # answers of the old version, before its times are a measure
FEW = 5  # answers of the new version, below which their times decide nothing
SLACK_S = 0.005  # that nobody notices, whatever the ratio


@dataclass(frozen=True, slots=True)
class Rules:
    """seconds, requests: whichever is over first ends the watch. errors: share that may fail; slower: ratio."""

    seconds: float
    requests: int
    errors: float
    slower: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """why: a sentence for people."""

    kind: Literal["wait", "promote", "roll_back"]
    why: str


def decide(old: Side, new: Side, elapsed_s: float, rules: Rules) -> Verdict:
    """The verdict on what was seen in `elapsed_s` seconds of watching both."""
    ended = elapsed_s >= rules.seconds or (new.judged >= rules.requests and old.good >= ENOUGH)
    against = _failures(new, rules, ended) or _slowness(old, new, rules, ended)
    if against:
        return Verdict("roll_back", against)
    if not ended:
        return Verdict("wait", "nothing speaks against it yet")
    if new.judged == 0:
        return Verdict("promote", f"no request reached it in {elapsed_s:.0f} s, so only its start speaks for it")
    most = at_most(new.failed, new.judged)
    return Verdict("promote", f"{_counted(new)}; not more than {most:.1%} can be failing, at 99 % confidence")


def at_least(hits: int, of: int) -> float:
    """The share that stands behind `hits` of `of` is no less, at every `of` at once, with probability 1 - ALPHA."""
    if not hits:
        return 0.0
    seen, limit = hits / of, math.log(of * (of + 1) / ALPHA) / of
    low, high = 0.0, seen
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _divergence(seen, middle) > limit else (low, middle)
    return low


def at_most(hits: int, of: int) -> float:
    """The same from above; 1.0 where nothing was seen."""
    return 1.0 - at_least(of - hits, of)


def _divergence(seen: float, true: float) -> float:
    """Of Kullback and Leibler, between two shares; infinite where `seen` could not be."""
    if true <= 0.0:
        return math.inf
    rest = (1 - seen) * math.log((1 - seen) / (1 - true)) if seen < 1 else 0.0
    return seen * math.log(seen / true) + rest


def _failures(new: Side, rules: Rules, ended: bool) -> str:
    sure = at_least(new.failed, new.judged) > rules.errors
    if sure or (ended and new.failing > rules.errors):
        doubt = "" if sure else ", which may be chance, and in doubt the old version stays"
        return f"{_counted(new)} that the old version answers, {rules.errors:.1%} may{doubt}"
    return ""


def _slowness(old: Side, new: Side, rules: Rules, ended: bool) -> str:
    if old.good < ENOUGH:
        return ""
    for share in (0.5, 0.95):
        usual = old.quantile(share)
        slow = new.beyond(rules.slower * usual + SLACK_S)
        sure = at_least(slow, new.good) > 1 - share
        doubtful = ended and share == 0.5 and new.good >= FEW and slow > new.good / 2  # a tail cannot be told from few
        if sure or doubtful:
            took = f"its p{share * 100:.0f} is {new.quantile(share) * 1000:.0f} ms and was {usual * 1000:.0f} ms"
            return f"{took}; {slow} of {new.good} answers took more than {rules.slower:g} times as long"
    return ""


def _counted(new: Side) -> str:
    late = f" ({new.late} of them too late)" if new.late else ""
    return f"{new.failed} of {new.judged} requests failed{late}"
