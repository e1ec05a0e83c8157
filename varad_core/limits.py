"""Limits from the scores of good parts that training did not see: bounds that hold whatever the scores'
distribution.
"""

import math

import numpy as np
from numpy.typing import NDArray

from varad_core.config import TrainingConfig
from varad_core.types import DataError, Limits

USUAL_BOUNDS = (0.10, 0.05, 0.02, 0.01)
MIN_PARTS_A_SIDE = 4  # of the split between the loop and the limits


def false_reject_bound(n: int, rank: int, confidence: float) -> float:
    """Share of good parts above the `rank`-th highest of n held-out scores, at most, with this confidence.

    Order statistics of any continuous distribution (Wilks 1941): the share above that score is Beta(rank, n -
    rank + 1). For rank 1 it is 1 - (1 - confidence) ** (1 / n): 10, 5, 2, 1 % for 29, 59, 149, 299 parts at
    95 %.
    """
    from scipy.stats import beta

    return float(beta.ppf(confidence, rank, n - rank + 1))


def parts_needed(false_reject_target: float, confidence: float) -> int:
    """The fewest held-out good parts whose highest score keeps the target."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - false_reject_target))


def held_out_parts(good_parts: int, settings: TrainingConfig) -> int:
    """How many of the good parts are held out for calibration and limits."""
    wanted = max(MIN_PARTS_A_SIDE, round(good_parts * settings.holdout_share))
    return min(wanted, good_parts - MIN_PARTS_A_SIDE)


def good_parts_needed(false_reject_target: float, settings: TrainingConfig) -> int:
    """The fewest good parts in all of which enough are held out for this target."""
    needed = parts_needed(false_reject_target, settings.confidence)
    good_parts = needed + MIN_PARTS_A_SIDE
    while held_out_parts(good_parts, settings) < needed:
        good_parts += 1
    return good_parts


def next_bound(good_parts: int, settings: TrainingConfig) -> tuple[float, int] | None:
    """The next usual bound that more good parts would support, and how many more; None beyond the last."""
    for target in USUAL_BOUNDS:
        if (needed := good_parts_needed(target, settings)) > good_parts:
            return target, needed - good_parts
    return None


def require_parts(good_parts: int, settings: TrainingConfig) -> None:
    """Refuse a target that so few good parts cannot keep, before the training.

    Raises:
        DataError: says how many are needed, and what the present ones support.
    """
    target, held_out = settings.false_reject_target, held_out_parts(good_parts, settings)
    if target is None or held_out >= (needed := parts_needed(target, settings.confidence)):
        return
    supported = math.ceil(1000 * false_reject_bound(held_out, 1, settings.confidence)) / 10
    in_all = good_parts_needed(target, settings)
    raise DataError(
        f"training: at most {100 * target:.3g} % of good parts rejected, at {settings.confidence:.0%} "
        f"confidence, needs {needed} held-out good parts, {in_all} in all at a holdout share of "
        f"{settings.holdout_share:g} (got {held_out} of {good_parts}): add {in_all - good_parts} more, or "
        f"ask for {supported:.1f} % or more"
    )


def fit_limits(
    scores: NDArray[np.float64],
    false_reject_target: float | None,
    confidence: float,
    recheck_quantile: float,
) -> Limits:
    """Limits from held-out good parts' scores.

    The reject limit is the lowest of the scores whose bound keeps the target. Without a target it is the
    highest: the tightest bound that so many parts support.

    Args:
        scores: (n,), of parts of which neither the model nor the scoring made use.
        false_reject_target: share of good parts above the reject limit, at most; None = as few as can be.
        confidence: of the bound.
        recheck_quantile: share of these scores below the recheck limit.

    Raises:
        ValueError: there are no scores, or one is not finite.
        DataError: there are too few for the target.
    """
    n = len(scores)
    if not n or not np.isfinite(scores).all():
        raise ValueError(f"limits need finite scores of held-out good parts (got {n})")
    rank = 1
    if false_reject_target is not None:
        if n < (needed := parts_needed(false_reject_target, confidence)):
            raise DataError(
                f"limits: at most {false_reject_target:.3g} of good parts above the reject limit, at "
                f"{confidence:.0%} confidence, needs {needed} held-out good parts (got {n})"
            )
        while rank < n and false_reject_bound(n, rank + 1, confidence) <= false_reject_target:
            rank += 1
    reject = float(np.sort(scores)[-rank])
    recheck = min(float(np.quantile(scores, recheck_quantile)), reject)
    return Limits(recheck, reject, false_reject_bound(n, rank, confidence), confidence)
