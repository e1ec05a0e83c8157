"""The twins of the conditional Gaussians find what is unlike good parts, as far as each can know."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.banks import ResidualBank, TokenBank, TokenGaussians, judged_by
from benchmarks.peers import method_config
from benchmarks.variants import ring_means
from varad_core import scoring
from varad_core.config import PredictorConfig, ScoringConfig
from varad_core.model import StationVarAD, pack_hierarchies
from varad_core.scoring import GaussianScoring, fit_gaussian_scoring

PARTS, C, SIDE = 16, 8, 8
SHAPES = [(C, SIDE, SIDE), (2 * C, SIDE // 2, SIDE // 2)]


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


def test_ring_means_foretell_a_slope_and_not_the_token_itself() -> None:
    station = StationVarAD(SHAPES, PredictorConfig(d_model=8, d_state=4, dt_rank=2))
    rows = torch.arange(float(SIDE)).view(1, 1, SIDE, 1)
    hierarchies = [rows.expand(1, C // 2, SIDE, SIDE), torch.zeros(1, C, SIDE // 2, SIDE // 2)]
    hierarchies[0] = hierarchies[0].clone()
    hierarchies[0][0, 0, 4, 4] += 49.0
    with ring_means():
        ((predicted, target),) = station.predict([pack_hierarchies(hierarchies)])
    assert predicted.shape == target.shape
    torch.testing.assert_close(predicted[0, 1, 3:5, 3:5], target[0, 1, 3:5, 3:5])
    assert predicted[0, 0, 4, 4] == pytest.approx(4.0)
    assert target[0, 0, 4, 4] == 53.0


def test_the_twin_of_paper_differs_in_its_target_alone() -> None:
    config, twin = (method_config(name, 64, 3) for name in ("paper", "paper, target detached"))
    assert twin.predictor.detach_target
    assert not config.predictor.detach_target
    released = replace(twin, predictor=replace(twin.predictor, detach_target=False))
    assert released == config
