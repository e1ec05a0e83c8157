"""A token must never see itself: its own prediction may not move when only it changes."""

from dataclasses import replace

import pytest
import torch

from varad_core.config import PredictorConfig
from varad_core.model import (
    PaperVarAD,
    StationVarAD,
    pack_hierarchies,
    packed_shape,
    place_means,
    unpack_hierarchies,
)

CONFIG = PredictorConfig(d_model=8, layers=2, d_state=4, dt_rank=2)
SHAPES = [(5, 6, 8), (3, 3, 4)]


def _randomize(model: torch.nn.Module) -> None:
    """So that no freshly initialised zero hides a path."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))


def _moves(model: StationVarAD | PaperVarAD) -> tuple[list[float], list[float]]:
    """How far each token, changed alone, moves its own prediction, and at most that of any token."""
    _randomize(model)
    grid = torch.randn(1, 6, 5, 7)
    before = model.predict([grid])[0][0]
    own, most = [], []
    for row in range(5):
        for column in range(7):
            changed = grid.clone()
            changed[0, :, row, column] += 3.0
            moved = (model.predict([changed])[0][0] - before).abs().amax(1)[0]
            own.append(float(moved[row, column].detach()))
            most.append(float(moved.detach().max()))
    return own, most


@pytest.mark.parametrize("directions", [1, 4])
def test_station_predicts_a_token_without_seeing_it(directions: int) -> None:
    torch.manual_seed(0)
    config = PredictorConfig(d_model=8, layers=2, d_state=4, dt_rank=2, directions=directions)
    own, most = _moves(StationVarAD([(12, 5, 7)], config))  # half of whose channels are kept
    assert max(own) == 0.0
    informs = sorted(most)[7 if directions == 1 else 0]  # read in rows alone, the last row informs none
    assert informs > 1e-4


def test_paper_predicts_a_token_without_seeing_it() -> None:
    torch.manual_seed(0)
    own, most = _moves(PaperVarAD([(6, 5, 7)], PredictorConfig(d_state=4, dt_rank=2)))
    assert max(own) == 0.0
    assert sorted(most)[len(most) // 2] > 1e-5  # so long a lag lets the middle of a small grid inform none


def test_direction_heads_see_no_more_than_the_fused_head() -> None:
    torch.manual_seed(0)
    model = StationVarAD([(12, 5, 7)], CONFIG)
    _randomize(model)
    tokens = torch.randn(1, 35, 6, requires_grad=True)
    model.hidden(tokens)[0, :, 17].sum().backward()
    assert tokens.grad is not None
    assert float(tokens.grad[0, 17].abs().max()) == 0.0
    assert float(tokens.grad.abs().max()) > 0.0


def test_packing_keeps_every_value_at_its_place() -> None:
    fine = torch.arange(16.0).view(1, 1, 4, 4)
    coarse = torch.arange(4.0).view(1, 1, 2, 2) + 100
    packed = pack_hierarchies([fine, coarse])
    assert packed.shape[1:] == torch.Size(packed_shape([(1, 4, 4), (1, 2, 2)]))
    assert packed[0, :, 0, 1].tolist() == [2, 3, 6, 7, 101]


def test_unpacking_lays_every_token_on_the_finest_grid() -> None:
    shapes = [(5, 6, 8), (3, 3, 4), (2, 3, 4)]
    hierarchies = [torch.randn(2, *shape) for shape in shapes]
    unpacked = unpack_hierarchies(pack_hierarchies(hierarchies), shapes)
    assert unpacked.shape == (2, 10, 6, 8)
    assert torch.equal(unpacked[:, :5], hierarchies[0])
    assert torch.equal(unpacked[:, 5:8, 1::2, 1::2], hierarchies[1])
    assert torch.equal(unpacked[:, 8:, ::2, 1::2], hierarchies[2])


def test_whitening_keeps_the_strongest_half_of_each_hierarchy_at_unit_covariance() -> None:
    torch.manual_seed(0)
    model = StationVarAD(SHAPES, replace(CONFIG, neighbourhood=1))
    fine = torch.randn(200, 5, 6, 8) * torch.tensor([1.0, 7.0, 1.0, 5.0, 1.0]).view(5, 1, 1) + 3
    hierarchies = [fine, torch.randn(200, 3, 3, 4)]
    model.fit_tokens(hierarchies)
    ((_, target),) = model.predict(model.prepare(hierarchies))
    tokens = target[:, :2].permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.allclose(torch.cov(tokens.t()), torch.eye(2), atol=0.02)
    kept = torch.corrcoef(torch.cat([tokens, fine.permute(0, 2, 3, 1).flatten(0, 2)], 1).t())[:2, 2:].abs()
    assert (kept.amax(0) > 0.9).tolist() == [False, True, False, True, False]


def test_place_means_are_used_only_where_they_foretell() -> None:
    torch.manual_seed(0)
    noise = torch.randn(20, 12, 4)
    placed = torch.randn(12, 4) + 0.5 * noise
    assert float(place_means(noise).abs().max()) == 0.0
    assert torch.allclose(place_means(placed), placed.mean(0))
    assert float(place_means(noise[:1]).abs().max()) == 0.0


@pytest.mark.parametrize("preset", [PaperVarAD, StationVarAD])
def test_training_lowers_the_loss(preset: type[PaperVarAD] | type[StationVarAD]) -> None:
    torch.manual_seed(0)
    model = preset(SHAPES, CONFIG)
    row = torch.linspace(-2, 2, 6).view(1, 1, 6, 1)
    hierarchies = [torch.randn(4, 5, 6, 8) * 0.1 + row, torch.randn(4, 3, 3, 4) * 0.1 + row[:, :, ::2]]
    model.fit_tokens(hierarchies)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        loss = model.loss(hierarchies if preset is PaperVarAD else model.prepare(hierarchies))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_paper_begin_tokens_are_stored_but_not_learned() -> None:
    model = PaperVarAD(SHAPES, CONFIG)
    assert any(name.endswith("begin") for name in model.state_dict())
    assert not any(name.endswith("begin") for name, _ in model.named_parameters())


def test_paper_target_can_be_detached() -> None:
    for detach in (False, True):
        torch.manual_seed(0)
        config = PredictorConfig(d_state=4, dt_rank=2, detach_target=detach)
        model = PaperVarAD([(5, 4, 4)], config)
        grid = torch.randn(2, 5, 4, 4)
        predicted, target = model.predict([grid])[0]
        assert target.requires_grad
        assert predicted.requires_grad
        model.loss([grid]).backward()
        assert model.adapters[0].get_submodule("phi").weight.grad is not None
