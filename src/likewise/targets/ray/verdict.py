"""The decision whether a canary is promoted, rolled back, or watched further.

A failed request counts against the new version only if the old one then handles the same request: each request is its
own control, so a client's errors and temporary problems of the cluster count against neither.  A response is slow if it
takes longer than `slower` times the old version's quantile over the same period: if the new version is not slower than
allowed, at most 50 % of its responses take longer than this multiple of the median, and at most 5 % longer than this
multiple of the 95th percentile.

Both are fractions with a limit, so the same bound applies: Chernoff's, which is valid for any number of requests.  It
is evaluated after every request, so the error probability is divided over all n as ALPHA / (n (n + 1)), whose sum is
ALPHA: a version within its limits is rolled back before the end of the watch with a probability of at most 1 % for each
of the three limits.  (The old version's quantiles are treated as exact; they are based on at least MIN_OLD responses.)
At the end of the watch the observed fractions decide, without a confidence bound; in doubt the old version stays.

Sources: H. Chernoff, "A measure of asymptotic efficiency for tests of a hypothesis based on the sum of observations",
1952 (the bound, with the divergence of two fractions); S. R. Howard et al., "Time-uniform, nonparametric, nonasymptotic
confidence sequences", 2021 (why repeated evaluation needs it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from likewise.targets.ray.version_stats import VersionStats

ALPHA = 0.01
MIN_OLD = 20  # responses of the old version before its times are used as a reference
MIN_NEW = 5  # responses of the new version before its times are used at the end of the watch
SLACK_S = 0.005  # a delay that is ignored, whatever the ratio


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits. seconds, requests: the first to be reached ends the watch. errors: fraction that may fail; slower:
    the allowed ratio of response times.
    """

    seconds: float
    requests: int
    errors: float
    slower: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision. why: the reason as a sentence for display."""

    kind: Literal["wait", "promote", "roll_back"]
    why: str


def decide(old: VersionStats, new: VersionStats, elapsed_s: float, rules: Rules) -> Verdict:
    """The verdict on the statistics of both versions after `elapsed_s` seconds."""
    ended = elapsed_s >= rules.seconds or (new.judged >= rules.requests and old.good >= MIN_OLD)
    against = _failures(new, rules, ended) or _slowness(old, new, rules, ended)
    if against:
        return Verdict("roll_back", against)
    if not ended:
        return Verdict("wait", "there is no evidence against it yet")
    if new.judged == 0:
        return Verdict("promote", f"it got no request in {elapsed_s:.0f} s; only its successful start was verified")
    limit = upper_bound(new.failed, new.judged)
    return Verdict("promote", f"{_counts(new)}; the failure rate is at most {limit:.1%} at 99 % confidence")


def lower_bound(hits: int, of: int) -> float:
    """A lower bound of the true fraction after `hits` of `of`, valid for all `of` with probability 1 - ALPHA."""
    if not hits:
        return 0.0
    seen, limit = hits / of, math.log(of * (of + 1) / ALPHA) / of
    low, high = 0.0, seen
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _divergence(seen, middle) > limit else (low, middle)
    return low


def upper_bound(hits: int, of: int) -> float:
    """The corresponding upper bound; 1.0 if `of` is 0."""
    return 1.0 - lower_bound(of - hits, of)


def _divergence(seen: float, true: float) -> float:
    """The Kullback-Leibler divergence of two fractions; infinite if `seen` is impossible."""
    if true <= 0.0:
        return math.inf
    rest = (1 - seen) * math.log((1 - seen) / (1 - true)) if seen < 1 else 0.0
    return seen * math.log(seen / true) + rest


def _failures(new: VersionStats, rules: Rules, ended: bool) -> str:
    sure = lower_bound(new.failed, new.judged) > rules.errors
    if sure or (ended and new.failing > rules.errors):
        doubt = "" if sure else "; this may be chance, but in doubt the old version stays"
        return f"{_counts(new)} that the old version handled; the limit is {rules.errors:.1%}{doubt}"
    return ""


def _slowness(old: VersionStats, new: VersionStats, rules: Rules, ended: bool) -> str:
    if old.good < MIN_OLD:
        return ""
    for fraction in (0.5, 0.95):
        usual = old.quantile(fraction)
        slow = new.beyond(rules.slower * usual + SLACK_S)
        sure = lower_bound(slow, new.good) > 1 - fraction
        doubtful = (
            ended and fraction == 0.5 and new.good >= MIN_NEW and slow > new.good / 2
        )  # a tail needs more responses
        if sure or doubtful:
            actual = new.quantile(fraction)
            times = f"its p{fraction * 100:.0f} is {actual * 1000:.0f} ms, the old version's {usual * 1000:.0f} ms"
            return f"{times}; {slow} of {new.good} responses took more than {rules.slower:g} times as long"
    return ""


def _counts(new: VersionStats) -> str:
    late = f" ({new.late} of them too late)" if new.late else ""
    return f"{new.failed} of {new.judged} requests failed{late}"
