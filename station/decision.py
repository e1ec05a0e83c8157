"""From score to verdict. The only place where a part can become PASS."""

import math

from station.types import Reason, Verdict
from varad_core.types import Limits


def decide(score: float, limits: Limits) -> tuple[Verdict, Reason]:
    """The verdict for a raw score. A score that is not a finite number never passes."""
    if not math.isfinite(score):
        return Verdict.NOT_INSPECTED, Reason.SCORE_NOT_FINITE
    if score <= limits.recheck:
        return Verdict.PASS, Reason.BELOW_LIMIT
    if score <= limits.reject:
        return Verdict.RECHECK, Reason.ABOVE_RECHECK
    return Verdict.REJECT, Reason.ABOVE_REJECT
