import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.limits import DISTRIBUTIONS, calibrated_line, rates_of_draws
from varad_core.config import TrainingConfig
from varad_core.limits import false_reject_bound, fit_limits, next_bound, parts_needed, require_parts
from varad_core.types import DataError


@pytest.mark.parametrize(("n", "bound"), [(29, 0.10), (59, 0.05), (149, 0.02), (299, 0.01)])
def test_the_parts_that_published_bounds_need(n: int, bound: float) -> None:
    assert false_reject_bound(n, 1, 0.95) <= bound < false_reject_bound(n - 1, 1, 0.95)


def test_rank_one_is_the_closed_form() -> None:
    assert false_reject_bound(40, 1, 0.95) == pytest.approx(1 - 0.05 ** (1 / 40))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(("target", "held_out"), [(0.10, 29), (0.10, 80), (0.01, 299)])
def test_of_a_thousand_lines_no_more_exceed_the_bound_than_its_confidence_allows(
    name: str, target: float, held_out: int
) -> None:
    rates = rates_of_draws(name, target, held_out, lines=1000)
    rank = 1 + sum(false_reject_bound(held_out, k, 0.95) <= target for k in range(2, held_out))
    confidence = 1 - stats.beta.sf(target, rank, held_out - rank + 1)  # what whole parts make of 95 %
    outside = stats.binomtest(int((rates > target).sum()), 1000, 1 - confidence)
    assert outside.pvalue > 1e-4  # neither more lines outside, nor a limit wider than it must be
    assert (rates > target).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.slow
def test_the_bound_survives_calibration() -> None:
    """Scores judged by statistics that their own parts shaped would put 20 % of lines outside."""
    bound, _ = calibrated_line(0, 29, 1)
    rates = np.array([calibrated_line(line, 29, 200)[1] for line in range(60)])
    assert (rates > bound).mean() <= stats.binom.ppf(0.999, 60, 0.05) / 60
    assert rates.mean() <= 1 / 30 + 3 * rates.std() / math.sqrt(60)  # any of 30 is the highest


def test_without_a_target_the_highest_score_is_the_limit_and_the_bound_is_honest() -> None:
    limits = fit_limits(np.arange(10.0), None, 0.95, 0.9)
    assert limits.reject == 9.0
    assert limits.false_reject_bound == pytest.approx(1 - 0.05**0.1)
    assert limits.recheck <= limits.reject


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_limits_are_ordered(scores: list[float]) -> None:
    limits = fit_limits(np.array(scores), None, 0.95, 0.97)
    assert limits.recheck <= limits.reject <= max(scores)


@pytest.mark.parametrize("scores", [[], [1.0, math.nan], [1.0, math.inf]])
def test_unusable_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        fit_limits(np.array(scores), 0.05, 0.95, 0.97)


@pytest.mark.parametrize(
    ("target", "held_out", "in_all"), [(0.1, 29, 72), (0.05, 59, 147), (0.02, 149, 372), (0.01, 299, 747)]
)
def test_a_target_that_the_parts_cannot_keep_is_refused_with_what_is_needed(
    target: float, held_out: int, in_all: int
) -> None:
    assert parts_needed(target, 0.95) == held_out
    settings = TrainingConfig(false_reject_target=target, holdout_share=0.4)
    require_parts(in_all, settings)
    fit_limits(np.arange(float(held_out)), target, 0.95, 0.97)
    with pytest.raises(DataError, match=rf"{held_out} held-out good parts, {in_all} in all .*add 1 more"):
        require_parts(in_all - 1, settings)
    with pytest.raises(DataError, match=f"needs {held_out} held-out"):
        fit_limits(np.arange(held_out - 1.0), target, 0.95, 0.97)


def test_what_a_refusal_offers_instead_is_accepted() -> None:
    with pytest.raises(DataError, match=r"ask for 7\.3 % or more"):
        require_parts(100, TrainingConfig(false_reject_target=0.02))
    require_parts(100, TrainingConfig(false_reject_target=0.073))


@given(st.integers(8, 2000), st.floats(0.1, 0.9))
def test_the_next_bound_is_kept_by_as_many_more_parts_as_it_says(good_parts: int, holdout: float) -> None:
    settings = TrainingConfig(holdout_share=holdout)
    found = next_bound(good_parts, settings)
    if found is None:
        require_parts(good_parts, replace(settings, false_reject_target=0.01))
    else:
        target, more = found
        asked = replace(settings, false_reject_target=target)
        require_parts(good_parts + more, asked)
        with pytest.raises(DataError, match=f"add {more} more"):
            require_parts(good_parts, asked)
