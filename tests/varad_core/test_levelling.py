"""Pictures brought to the light of training: what it takes away, and what it must leave."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_config
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

import varad_core.train
from drivers.buttons import RenderedPart
from varad_core.alignment import Aligned
from varad_core.augmentation import sense
from varad_core.bundle import ensure_signing_key
from varad_core.config import TrainingConfig, default_config
from varad_core.inspector import Inspector, score_images
from varad_core.levelling import MOST, brightness, level, load_light, usual_brightness
from varad_core.tokenizer import to_tensor
from varad_core.train import train
from varad_core.types import AnomalyResult

Picture = NDArray[np.uint8]


def seen(picture: Picture, ignored: NDArray[np.bool_] | None = None) -> Aligned:
    return Aligned(picture, np.eye(2, 3), True, ignored)


def texture(seed: int, lowest: int = 40, highest: int = 180) -> Picture:
    return np.random.default_rng(seed).integers(lowest, highest, (48, 64, 3), dtype=np.uint8)


def in_light(picture: Picture, gain: float) -> Picture:
    return sense(picture, np.random.default_rng(0), gain=gain)


@given(seed=st.integers(0, 99), gain=st.floats(0.8, 1.25))
def test_a_picture_looks_the_same_in_any_light(seed: int, gain: float) -> None:
    picture = texture(seed)
    one, other = (level(seen(taken), 110.0).image_rgb for taken in (picture, in_light(picture, gain)))
    assert np.abs(one.astype(int) - other).max() <= 2  # each of the two roundings moves a grey level by 1


def test_it_is_as_bright_as_the_training_parts_then() -> None:
    light = usual_brightness(map(seen, map(texture, range(5))))
    assert brightness(level(seen(in_light(texture(9), 0.8)), light)) == pytest.approx(light, abs=0.6)


@pytest.mark.parametrize("gain", [0.4, 0.02])
def test_beyond_a_third_the_rest_of_the_difference_shows(gain: float) -> None:
    dark = in_light(texture(0), gain)
    levelled = level(seen(dark), brightness(seen(texture(0))))
    assert levelled.gain == MOST
    assert brightness(levelled) < 0.6 * brightness(seen(texture(0)))


def test_paint_stays_and_what_is_under_it_decides_nothing() -> None:
    ignored = np.zeros((48, 64), np.bool_)
    ignored[:20] = True
    picture = texture(1)
    white, black = picture.copy(), picture.copy()
    white[ignored], black[ignored] = 255, 0
    one, other = level(seen(white, ignored), 100.0), level(seen(black, ignored), 100.0)
    np.testing.assert_array_equal(one.image_rgb[~ignored], other.image_rgb[~ignored])
    assert (one.image_rgb[ignored] == 255).all()
    assert (other.image_rgb[ignored] == 0).all()


def test_black_and_wholly_painted_pictures_are_no_trouble() -> None:
    black = np.zeros((48, 64, 3), np.uint8)
    assert not level(seen(black), 100.0).image_rgb.any()
    level(seen(black, np.ones((48, 64), np.bool_)), 100.0)
    assert usual_brightness([seen(black)]) == 1


@pytest.fixture(scope="module")
def levelled(good_images: list[Picture]) -> Inspector:
    return train(good_images, tiny_config(level_light=True), name="levelled")


@pytest.mark.parametrize("gain", [0.8, 1.15])
def test_a_lamp_that_ages_rejects_no_good_part(
    levelled: Inspector, trained: Inspector, part: Callable[..., RenderedPart], gain: float
) -> None:
    parts = [part(200 + index).image_rgb for index in range(8)]
    changed = [in_light(picture, gain) for picture in parts]
    moved, moved_in_kept_light = (
        np.abs(score_images(model, changed) - score_images(model, parts)).max()
        for model in (levelled, trained)
    )
    assert moved < 0.35 * moved_in_kept_light
    assert (score_images(levelled, changed) <= levelled.limits.reject).all()


def test_the_alarm_about_the_light_speaks_of_the_picture_as_it_was_taken(
    levelled: Inspector, part: Callable[..., RenderedPart]
) -> None:
    picture = part(200).image_rgb
    before, after = (
        levelled.inspect(taken).conditions["light"][0] for taken in (picture, in_light(picture, 0.8))
    )
    assert after - before == pytest.approx(np.log(0.8), abs=0.03)


def test_training_and_its_limits_see_pictures_as_inspection_does(
    good_images: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: set[bytes] = set()
    lights = []

    def recorded(tiles_rgb: Picture) -> Tensor:
        shown.update(tile.tobytes() for tile in tiles_rgb)
        return to_tensor(tiles_rgb)

    class Recorded(Inspector):
        def inspect(self, image_rgb: Picture) -> AnomalyResult:
            lights.append(self.light)
            return super().inspect(image_rgb)

    monkeypatch.setattr(varad_core.train, "to_tensor", recorded)
    monkeypatch.setattr(varad_core.train, "Inspector", Recorded)
    various = [
        in_light(image, gain) for image, gain in zip(good_images, np.linspace(0.8, 1.2, 10), strict=False)
    ]
    settings = TrainingConfig(seed=3, steps=1, batch_size=2, variants=1)
    model = train(various, tiny_config(level_light=True, training=settings), name="various")
    assert {model.align(image).image_rgb.tobytes() for image in various} <= shown
    assert len(lights) == model.provenance["held_out_parts"]
    assert set(lights) == {model.light}


def test_a_bundle_keeps_the_light(levelled: Inspector, keys: Path, tmp_path: Path) -> None:
    levelled.save(tmp_path / "levelled.safetensors", ensure_signing_key(keys))
    loaded = Inspector.load(tmp_path / "levelled.safetensors", trusted_keys=keys, device="cpu")
    assert loaded.light == levelled.light
    assert loaded.light == pytest.approx(105, abs=20)


def test_a_model_that_keeps_the_light_does_so_in_its_bundle(bundle_path: Path, keys: Path) -> None:
    assert Inspector.load(bundle_path, trusted_keys=keys, device="cpu").light is None


@pytest.mark.parametrize("stored", ["bright", True, 0.0, 256.0, float("nan")])
def test_what_is_no_brightness_is_refused(stored: object) -> None:
    with pytest.raises(ValueError, match="light cannot be"):
        load_light(stored)


def test_a_model_keeps_the_light_where_its_tokenizer_is_used_to_it() -> None:
    levels = {name: default_config("station", name, 96).level_light for name in ("embedded", "resnet18")}
    assert levels == {"embedded": True, "resnet18": False}
    assert not default_config("paper", "embedded", 96).level_light
