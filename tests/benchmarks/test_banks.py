"""The twins of the conditional Gaussians find what is unlike good parts, as far as each can know."""

import pytest
import torch
from torch import Tensor

from benchmarks.banks import ResidualBank, TokenBank, TokenGaussians, judged_by
from varad_core import scoring
from varad_core.config import ScoringConfig
from varad_core.scoring import GaussianScoring, fit_gaussian_scoring

PARTS, C, SIDE = 16, 8, 8


@pytest.mark.parametrize(
    ("twin", "sees_what_is_usual_elsewhere"),
    [(TokenGaussians, True), (ResidualBank, True), (TokenBank, False)],
)
def test_a_twin_finds_strange_tokens(
    twin: type[TokenGaussians] | type[ResidualBank], sees_what_is_usual_elsewhere: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    # The left half is about +3, the right half about -3, and the predictor knows it.
    predicted = torch.full((PARTS, C, SIDE, SIDE), 3.0)
    predicted[..., SIDE // 2 :] = -3.0
    target = predicted + 0.3 * torch.randn(predicted.shape, generator=generator)
    with judged_by(twin)():
        fitted, scores = fit_gaussian_scoring(
            predicted,
            target,
            torch.arange(PARTS) < PARTS // 2,
            ScoringConfig(clusters=2, prior_weight=10),
            seed=0,
        )
    assert isinstance(fitted, twin)
    assert scoring.GaussianScoring is GaussianScoring, "the library's own is back"
    assert scores.shape == (PARTS // 2,)
    assert scores.isfinite().all()

    def highest(added: Tensor) -> float:
        changed = target[:1].clone()
        changed[0, :, 4, 2] += added
        return float(fitted.scores(fitted.maps([(predicted[:1], changed)]))[0])

    usual = highest(torch.zeros(C))
    assert highest(3.0 * (-torch.ones(C)) ** torch.arange(C)) > usual + 1, "a token unlike any good one"
    assert (highest(-6.0 * torch.ones(C)) > usual + 1) == sees_what_is_usual_elsewhere, "good on the right"
