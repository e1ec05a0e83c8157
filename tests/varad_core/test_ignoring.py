"""Regions where nothing counts: drawn over one part, they follow every part."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import tiny_config
from numpy.typing import NDArray

from drivers.buttons import RenderedPart
from varad_core.alignment import WholeImage
from varad_core.augmentation import move
from varad_core.bundle import ensure_signing_key
from varad_core.config import ScoringConfig
from varad_core.ignoring import PAINT, Mask, following, load_mask, stored_mask
from varad_core.inspector import Inspector
from varad_core.scoring import fit_gaussian_scoring
from varad_core.train import train
from varad_core.types import DataError

Picture = NDArray[np.uint8]
SIDE = 192


def with_spot(picture: Picture, x: int, y: int, radius: int = 9) -> Picture:
    """A bright blot, as no button has one."""
    marked = picture.copy()
    cv2.circle(marked, (x, y), radius, (60, 90, 255), -1)
    return marked


def around(x: int, y: int, radius: int = 16) -> Mask:
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(drawn, (x, y), radius, 1, -1)
    return drawn.astype(np.bool_)


def plate(seed: int) -> Picture:
    """A plain surface with grain, always in the same place."""
    rng = np.random.default_rng(seed)
    grain = cv2.GaussianBlur(rng.normal(0, 12, (SIDE, SIDE, 3)).astype(np.float32), (0, 0), 1.5)
    return np.asarray(np.clip(120 + grain, 0, 255), np.uint8)


@pytest.fixture(scope="module")
def plates() -> list[Picture]:
    return [plate(seed) for seed in range(24)]


@pytest.fixture(scope="module")
def masked(plates: list[Picture]) -> Inspector:
    return train(plates, tiny_config(), name="masked", ignored=around(70, 90))


@pytest.fixture(scope="module")
def whole(plates: list[Picture]) -> Inspector:
    return train(plates, tiny_config(), name="whole")


def test_what_lies_in_the_region_changes_nothing_and_beside_it_everything(
    whole: Inspector, masked: Inspector
) -> None:
    good = plate(100)
    inside, outside = with_spot(good, 70, 90), with_spot(good, 140, 120)
    assert whole.inspect(inside).score > 2 * whole.limits.reject
    assert masked.inspect(inside).score == masked.inspect(good).score
    np.testing.assert_array_equal(masked.inspect(inside).anomaly_map, masked.inspect(good).anomaly_map)
    assert masked.inspect(outside).score > 2 * masked.limits.reject


def test_limits_come_from_what_counts(plates: list[Picture]) -> None:
    """Where good parts differ in the region alone, leaving it out makes the limit lower."""
    rng = np.random.default_rng(3)
    various = [
        with_spot(image, *rng.integers((60, 80), (84, 104)).tolist(), int(rng.integers(1, 9)))
        for image in plates
    ]
    everything = train(various, tiny_config(), name="x")
    left_out = train(various, tiny_config(), name="x", ignored=around(72, 92, 40))
    assert left_out.limits.reject < 0.8 * everything.limits.reject


def test_a_stored_model_keeps_the_region(masked: Inspector, keys: Path, tmp_path: Path) -> None:
    masked.save(tmp_path / "m.safetensors", ensure_signing_key(keys))
    loaded = Inspector.load(tmp_path / "m.safetensors", trusted_keys=keys, device="cpu")
    inside = with_spot(plate(100), 70, 90)
    assert loaded.inspect(inside).score == pytest.approx(masked.inspect(inside).score, abs=1e-4)
    damaged = {"ignored": torch.zeros(3, dtype=torch.uint8)}
    with pytest.raises(ValueError, match="the mask is"):
        stored_mask(WholeImage(), damaged)


def test_a_region_turns_with_a_round_part(part: Callable[..., RenderedPart], trained: Inspector) -> None:
    """Drawn over one picture, found again over the same part in another pose."""
    assert trained.alignment.name == "disc"
    picture = part(3).image_rgb
    drawn = around(70, 90)
    moved = partial(move, turn_deg=25, shift=(0.03, -0.02))
    drawn_there = moved(np.repeat(drawn[..., None], 3, 2).astype(np.uint8) * 255)[..., 0] > 127
    here, there = (
        following(trained.alignment, mask, trained.align(image_rgb)).ignored
        for mask, image_rgb in ((drawn, picture), (drawn_there, moved(picture)))
    )
    assert (here & there).sum() / (here | there).sum() > 0.7


def test_of_a_strip_the_region_lies_where_it_was_drawn_whatever_the_next_one_measures() -> None:
    strip = np.full((128, 1024, 3), 10, np.uint8)
    drawn = np.zeros(strip.shape[:2], np.bool_)
    drawn[:, 512:] = True
    alignment = following(WholeImage(), drawn, WholeImage().align(strip, 64, 32))
    for width in (1024, 960):
        painted = alignment.align(strip[:, :width], 64, 32).image_rgb
        half = painted.shape[1] // 2
        assert (painted[:, : half - 2] == 10).all()
        assert (painted[:, half + 2 :] == PAINT).all()


def test_the_edge_of_the_paint_counts_as_little_as_the_paint() -> None:
    """In tiles no place is compared with itself: the edge would be the strangest of every good strip."""
    strips = [np.concatenate([plate(2 * seed), plate(2 * seed + 1)], axis=1) for seed in range(12)]
    drawn = np.zeros(strips[0].shape[:2], np.bool_)
    drawn[:, :120] = True
    config = tiny_config(alignment="none", framing="tiles")
    masked = train(strips, config, name="masked", ignored=drawn)
    good = np.concatenate([plate(100), plate(101)], axis=1)
    inside, outside = with_spot(good, 60, 90), with_spot(good, 300, 90)
    assert masked.inspect(inside).score == masked.inspect(good).score
    found = masked.inspect(outside)
    strange = found.anomaly_map
    columns = strange.shape[1]
    left = strange[:, : columns * 140 // 384]  # the mask, and half a token's 32 px
    np.testing.assert_allclose(left[5:-5, 5:], strange.min(), atol=1e-4)  # the border is 0 beyond the map
    assert np.unravel_index(strange.argmax(), strange.shape)[1] > columns * 270 // 384
    assert found.score > 1.5 * masked.limits.reject
    bare = train([strip[:, 120:] for strip in strips], config, name="bare")
    assert masked.limits.reject < 1.3 * bare.limits.reject


def test_a_mask_that_leaves_too_little_beside_its_band_is_refused(plates: list[Picture]) -> None:
    """A model that looks at nothing would pass every part."""
    drawn = np.ones((SIDE, SIDE), np.bool_)
    drawn[:, 80:120] = False
    train(plates[:8], tiny_config(), name="square, no band", ignored=drawn)
    with pytest.raises(DataError, match="leaves out the whole part"):
        train(plates[:8], tiny_config(alignment="none", framing="tiles"), name="tiles", ignored=drawn)


def test_scores_for_the_limits_leave_out_what_does_not_count() -> None:
    """Without variants a square's limits come from maps, not inspections: the same must count in both."""
    target = torch.randn(24, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    target[5, :, :3, :3] *= 20
    ignored = np.zeros((64, 64), np.bool_)
    ignored[:48, :48] = True  # what is strange, and as far as smoothing spreads it
    held_out = torch.arange(24) < 12
    everything, counted = (
        fit_gaussian_scoring(torch.zeros_like(target), target, held_out, ScoringConfig(clusters=1), 0, mask)[
            1
        ]
        for mask in (None, ignored)
    )
    assert everything.argmax() == 5
    assert counted[5] < 0.5 * everything[5]
    others = [part for part in range(12) if part != 5]
    assert (counted[others] <= everything[others]).all()


def test_masks_that_fit_no_picture_are_refused_with_what_to_do(tmp_path: Path) -> None:
    picture, mask = tmp_path / "00.png", tmp_path / "mask.png"
    assert cv2.imwrite(str(picture), np.zeros((SIDE, SIDE, 3), np.uint8))

    def drawn(pixels: Picture) -> Path:
        assert cv2.imwrite(str(mask), pixels)
        return mask

    with pytest.raises(DataError, match=r"10 x 20 px, but .*00.png has 192 x 192; draw it over a copy"):
        load_mask(drawn(np.full((20, 10), 255, np.uint8)), picture)
    with pytest.raises(DataError, match="all white, it leaves out everything"):
        load_mask(drawn(np.full((SIDE, SIDE), 255, np.uint8)), picture)
    with pytest.raises(DataError, match="all black, it leaves out nothing"):
        load_mask(drawn(np.zeros((SIDE, SIDE), np.uint8)), picture)
    with pytest.raises(DataError, match="no such file"):
        load_mask(tmp_path / "absent.png", picture)
    with pytest.raises(DataError, match="100% of it is neither black nor white, is it a photograph"):
        load_mask(drawn(plate(1)[..., 0]), picture)
    region = around(70, 90)
    np.testing.assert_array_equal(load_mask(drawn(region.astype(np.uint8) * 255), picture), region)


def test_masks_that_leave_out_all_or_nothing_of_the_part_are_refused(
    trained: Inspector, part: Callable[..., RenderedPart]
) -> None:
    aligned = trained.align(part(3).image_rgb)
    corner = np.zeros((SIDE, SIDE), np.bool_)
    corner[:2, :2] = True
    with pytest.raises(DataError, match="nothing of what the model looks at"):
        following(trained.alignment, corner, aligned)
    with pytest.raises(DataError, match="leaves out the whole part"):
        following(trained.alignment, np.ones((SIDE, SIDE), np.bool_), aligned)
    empty = trained.align(np.full((SIDE, SIDE, 3), 60, np.uint8))
    with pytest.raises(DataError, match="no part is found"):
        following(trained.alignment, around(70, 90), empty)
