"""The report's few statistics, each with its source."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

_RUN_LENGTH = 8  # Western Electric rule 4: so many in a row on one side of the centre
_MAX_SUBGROUPS = 25
_MIN_SUBGROUP = 20


@dataclass(frozen=True, slots=True)
class Subgroup:
    """One point of a p-chart: consecutive parts, the share that did not pass, and the 3-sigma limits for this
    size.

    `signal` is empty, "limit" (outside the limits) or "run" (8 or more in a row on one side of the centre).
    """

    started_unix_ns: int
    parts: int
    share: float
    lower: float
    upper: float
    signal: str


@dataclass(frozen=True, slots=True)
class PChart:
    """Shewhart's chart for a share (ISO 7870-2), with its centre."""

    centre: float
    subgroups: tuple[Subgroup, ...]


def p_chart(parts: Sequence[tuple[int, bool]]) -> PChart:
    """The share of parts that did not pass, in at most 25 subgroups of consecutive parts, at least 20 each.

    Args:
        parts: (triggered_unix_ns, passed), oldest first. Fewer than 40 make no chart.
    """
    count = min(_MAX_SUBGROUPS, len(parts) // _MIN_SUBGROUP)
    if count < 2:
        return PChart(0.0, ())
    centre = sum(not passed for _, passed in parts) / len(parts)
    edges = [len(parts) * number // count for number in range(count + 1)]
    groups = [parts[start:end] for start, end in pairwise(edges)]
    shares = [sum(not passed for _, passed in group) / len(group) for group in groups]
    subgroups = []
    for number, (group, share) in enumerate(zip(groups, shares, strict=True)):
        reach = 3 * sqrt(centre * (1 - centre) / len(group))
        lower, upper = max(0.0, centre - reach), min(1.0, centre + reach)
        signal = "" if lower <= share <= upper else "limit"
        if not signal and _in_a_run(shares, number, centre):
            signal = "run"
        subgroups.append(Subgroup(group[0][0], len(group), share, lower, upper, signal))
    return PChart(centre, tuple(subgroups))


def _in_a_run(shares: Sequence[float], number: int, centre: float) -> bool:
    """Whether this point ends or continues a run of `_RUN_LENGTH` on its side of the centre."""
    above = shares[number] > centre
    if shares[number] == centre or number + 1 < _RUN_LENGTH:
        return False
    last = shares[number + 1 - _RUN_LENGTH : number + 1]
    return all(share != centre and (share > centre) == above for share in last)


def escape_bound(runs: int, misses: int, confidence: float = 0.95) -> float | None:
    """The highest share of defective parts that may still slip through, after `misses` in `runs` challenge
    parts.

    One-sided Clopper-Pearson: about 3 / n where none was missed. None when none was run: then nothing is
    known.
    """
    if runs == 0:
        return None
    if misses >= runs:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(misses + 1, runs - misses, confidence))


def bucket_s(span_s: float, most: int = 12) -> int:
    """The shortest usual interval, 5 s to a day, that cuts a span into at most so many; whole days
    beyond."""
    for seconds in (5, 10, 30, 60, 300, 600, 900, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 86_400):
        if span_s <= seconds * most:
            return seconds
    return 86_400 * (int(span_s) // (86_400 * most) + 1)
