import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from varad_core.config import ScoringConfig
from varad_core.scoring import (
    CosineScoring,
    GaussianScoring,
    fit_gaussian_scoring,
    fit_positions,
    smooth,
)

HELD_OUT = torch.arange(60) % 3 > 0


def _good(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Residuals whose spread depends on what was predicted."""
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randn(n, 6, 8, 8, generator=generator)
    noise = torch.randn(n, 6, 8, 8, generator=generator) * (0.2 + (predicted[:, :1] > 0))
    return predicted, predicted + noise


def test_gaussians_judge_a_residual_by_what_was_predicted() -> None:
    scoring, _ = fit_gaussian_scoring(
        *_good(40), HELD_OUT[:40], ScoringConfig(clusters=4, rank=6, prior_weight=5.0), seed=0
    )
    predicted = torch.zeros(1, 6, 8, 8)
    predicted[:, 0, :4], predicted[:, 0, 4:] = 1.5, -1.5  # above: noisy, below: quiet
    distances = scoring.distances([(predicted, predicted + 0.8)])[0]
    assert distances[4:].mean() > 1.5 * distances[:4].mean()


def test_good_parts_have_unit_distances_and_held_out_scores_match_fresh_ones() -> None:
    scoring, held_out = fit_gaussian_scoring(*_good(60), HELD_OUT, ScoringConfig(clusters=4, rank=6), seed=0)
    fresh = _good(60, seed=1)
    assert float(scoring.distances([fresh]).square().mean()) == pytest.approx(1.0, abs=0.1)
    scores = scoring.scores(scoring.maps([fresh]))
    assert float(scores.mean()) == pytest.approx(float(held_out.mean()), abs=float(held_out.std()))


def test_scoring_survives_its_tensors_exactly() -> None:
    scoring, _ = fit_gaussian_scoring(*_good(20), HELD_OUT[:20], ScoringConfig(clusters=3, rank=4), seed=0)
    again = GaussianScoring(scoring.config, scoring.tensors())
    sample = [_good(2, seed=2)]
    assert torch.equal(again.maps(sample), scoring.maps(sample))


def test_position_statistics_are_used_where_positions_differ_and_nowhere_else() -> None:
    generator = torch.Generator().manual_seed(0)
    same = 1 + 0.1 * torch.randn(40, 8, 8, generator=generator)
    placed = same + torch.linspace(0, 1, 64).view(8, 8)
    assert fit_positions(same, 0.6)["location"].dim() == 0
    assert fit_positions(placed, 0.6)["location"].shape == (8, 8)


def test_a_rare_cluster_that_strays_thousands_of_times_as_far_can_be_judged() -> None:
    generator = torch.Generator().manual_seed(3)
    predicted, residual = torch.randn(2, 60, 24, 32, 32, generator=generator)
    predicted[::2, :, 16, 16] += 300
    residual[::2, :, 16, 16] *= 1e4
    config = ScoringConfig(clusters=2, rank=24, prior_weight=1.0)
    scoring, scores = fit_gaussian_scoring(predicted, predicted + residual, HELD_OUT, config, seed=0)
    assert torch.isfinite(scores).all()
    assert torch.isfinite(scoring.distances([(predicted, predicted + residual)])).all()


@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_distances_are_those_to_the_own_cluster_either_way(
    tokens: int, clusters: int, rank: int, seed: int
) -> None:
    torch.manual_seed(seed)
    C = 7
    directions = torch.stack([torch.linalg.qr(torch.randn(C, C)).Q[:rank] for _ in range(clusters)])
    variances = torch.rand(clusters, rank) * 4 + 0.1
    scoring = GaussianScoring(
        ScoringConfig(),
        {
            "whiten_mean": torch.randn(C), "whiten": torch.randn(C, C), "centres": torch.randn(clusters, C),
            "means": torch.randn(clusters, C), "directions": directions, "gains": 1 / variances - 1,
            "location": torch.zeros(()), "spread": torch.ones(()),
        },
    )  # fmt: skip
    r, nearest = torch.randn(tokens, C), torch.randint(0, clusters, (tokens,))
    expected = []
    for row, k in zip((r - scoring.values["whiten_mean"]) @ scoring.values["whiten"], nearest, strict=True):
        away = row - scoring.values["means"][k]
        along = directions[k] @ away
        expected.append(away @ away + ((1 / variances[k] - 1) * along * along).sum())
    for squared in (scoring.squared_together, scoring.squared_by_cluster):
        torch.testing.assert_close(squared(r, nearest), torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_smoothing_keeps_the_level() -> None:
    assert torch.allclose(smooth(torch.full((1, 9, 7), 2.5), 1.3), torch.full((1, 9, 7), 2.5), atol=1e-5)


def test_paper_score_is_the_maximum_of_one_minus_cosine() -> None:
    target = torch.ones(1, 4, 8, 8)
    predicted = target.clone()
    predicted[0, :, 2, 5] = -1.0
    scoring = CosineScoring(128)
    maps = scoring.maps([(predicted, target)])
    assert maps.shape == (1, 32, 32)
    row, column = divmod(int(maps[0].argmax()), 32)
    assert abs(row / 31 - 2 / 7) < 0.05
    assert abs(column / 31 - 5 / 7) < 0.05
    assert float(scoring.scores(maps)[0]) == float(maps.max())
    assert float(scoring.maps([(target, target)]).abs().max()) < 1e-6
