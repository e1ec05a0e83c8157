import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from varad_core.limits import false_reject_bound, fit_limits


@pytest.mark.parametrize(("n", "bound"), [(29, 0.10), (59, 0.05), (149, 0.02), (299, 0.01)])
def test_the_parts_that_published_bounds_need(n: int, bound: float) -> None:
    assert false_reject_bound(n, 1, 0.95) <= bound < false_reject_bound(n - 1, 1, 0.95)


def test_rank_one_is_the_closed_form() -> None:
    assert false_reject_bound(40, 1, 0.95) == pytest.approx(1 - 0.05 ** (1 / 40))


def test_the_bound_holds_in_simulation_whatever_the_distribution() -> None:
    rng = np.random.default_rng(0)
    for draw, tail in (
        (lambda size: rng.exponential(size=size), lambda limit: math.exp(-limit)),
        (lambda size: rng.random(size) ** 5, lambda limit: 1 - limit**0.2),
    ):
        kept = 0
        for _ in range(2000):
            limits = fit_limits(draw(80), 0.10, 0.95, 0.9)
            kept += tail(limits.reject) <= limits.false_reject_bound
        assert limits.false_reject_bound <= 0.10
        assert kept / 2000 >= 0.935  # 95 % less three standard errors
        assert kept / 2000 <= 0.975  # and no wider than it says


def test_few_parts_get_their_highest_score_and_an_honest_bound() -> None:
    limits = fit_limits(np.arange(10.0), 0.02, 0.95, 0.9)
    assert limits.reject == 9.0
    assert limits.false_reject_bound == pytest.approx(1 - 0.05**0.1)
    assert limits.recheck <= limits.reject


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_limits_are_ordered(scores: list[float]) -> None:
    limits = fit_limits(np.array(scores), 0.05, 0.95, 0.97)
    assert limits.recheck <= limits.reject <= max(scores)


@pytest.mark.parametrize("scores", [[], [1.0, math.nan], [1.0, math.inf]])
def test_unusable_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        fit_limits(np.array(scores), 0.05, 0.95, 0.97)
