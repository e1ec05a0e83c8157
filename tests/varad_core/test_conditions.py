"""Light, focus and pose of a picture against those of the training parts."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_config
from numpy.typing import NDArray

from drivers.buttons import RenderedPart
from varad_core.alignment import WholeImage
from varad_core.augmentation import move, sense
from varad_core.conditions import AT_LEAST, departures, load_usual, measure, usual_conditions
from varad_core.inspector import Inspector
from varad_core.train import train

Picture = NDArray[np.uint8]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def parts(part: Callable[..., RenderedPart]) -> list[Picture]:
    """Other parts than `trained` has seen, one of them broken."""
    return [part(100 + index, *(("crack", 0.9) if index == 4 else ())).image_rgb for index in range(9)]


def departed(inspector: Inspector, pictures: list[Picture]) -> dict[str, float]:
    """Median departure of each condition, in units of what is no news."""
    found = [inspector.inspect(picture).conditions for picture in pictures]
    return {
        name: float(np.median([conditions[name][0] for conditions in found])) / found[0][name][1]
        for name in AT_LEAST
    }


def test_other_good_parts_are_taken_as_usual(trained: Inspector, parts: list[Picture]) -> None:
    assert all(abs(off) < 0.7 for off in departed(trained, parts).values())


@pytest.mark.parametrize(
    ("change", "name", "sign"),
    [
        (partial(sense, rng=RNG, gain=1.25), "light", 1),
        (partial(sense, rng=RNG, gain=0.75), "light", -1),
        (partial(sense, rng=RNG, blur_px=2.0), "sharpness", -1),
        (partial(move, shift=(0.08, 0.0)), "left_right", 1),
        (partial(move, shift=(0.0, -0.08)), "up_down", -1),
        (partial(move, scale=0.9), "size", -1),
    ],
    ids=["brighter", "darker", "blurred", "right", "up", "smaller"],
)
def test_what_has_changed_departs_and_nothing_else(
    trained: Inspector, parts: list[Picture], change: Callable[[Picture], Picture], name: str, sign: int
) -> None:
    found = departed(trained, [change(picture) for picture in parts])
    assert sign * found.pop(name) > 1
    assert all(abs(off) < 1 for off in found.values())


@pytest.fixture(scope="module")
def masked(good_images: list[Picture]) -> Inspector:
    """Trained with a cross left out, whose painted edges are as sharp in any light and focus."""
    cross = np.zeros(good_images[0].shape[:2], np.bool_)
    cross[90:104] = cross[:, 90:104] = True
    return train(good_images, tiny_config(), name="masked", ignored=cross)


@pytest.mark.parametrize(
    ("change", "name"),
    [(partial(sense, rng=RNG, gain=0.8), "light"), (partial(sense, rng=RNG, blur_px=2.0), "sharpness")],
    ids=["darker", "blurred"],
)
def test_what_is_painted_over_hides_neither_light_nor_focus(
    masked: Inspector, parts: list[Picture], change: Callable[[Picture], Picture], name: str
) -> None:
    found = departed(masked, [change(picture) for picture in parts])
    assert found.pop(name) < -1
    assert all(abs(off) < 1 for off in found.values())


def test_parts_that_are_not_found_are_told_and_have_no_place(trained: Inspector) -> None:
    empty = np.full((192, 192, 3), 60, np.uint8)
    conditions = trained.inspect(empty).conditions
    assert conditions["found"] == (-1.0, AT_LEAST["found"])
    assert set(conditions) == {"found", "light", "sharpness"}


def test_light_departs_by_as_much_as_it_changes(trained: Inspector, parts: list[Picture]) -> None:
    darker = [np.asarray(picture // 2, np.uint8) for picture in parts]
    off, _ = trained.inspect(darker[0]).conditions["light"]
    before, _ = trained.inspect(parts[0]).conditions["light"]
    assert off - before == pytest.approx(-math.log(2), abs=0.03)


def test_a_picture_taken_as_a_whole_lies_where_it_lies() -> None:
    wide = np.random.default_rng(0).integers(0, 255, (256, 2048, 3), dtype=np.uint8)
    found = measure(WholeImage().align(wide, 224, 32), wide.shape[:2])
    assert found["left_right"] == pytest.approx(0.5, abs=0.01)
    assert found["up_down"] == pytest.approx(0.5, abs=0.01)


def test_a_black_and_a_white_picture_have_conditions() -> None:
    for level in (0, 255):
        picture = np.full((64, 64, 3), level, np.uint8)
        assert all(map(math.isfinite, measure(WholeImage().align(picture, 64), (64, 64)).values()))


def test_parts_that_differ_much_allow_more(trained: Inspector) -> None:
    usual = dict.fromkeys(AT_LEAST, 0.0)
    alike = usual_conditions([usual] * 20)
    assert {name: no_news for name, (_, no_news) in alike.items()} == AT_LEAST
    various = usual_conditions([usual | {"light": light} for light in np.linspace(-1, 1, 21).tolist()])
    assert various["light"][1] > 1
    assert departures(usual | {"light": 0.5}, various)["light"] == (0.5, various["light"][1])


@pytest.mark.parametrize("stored", [{"light": [0.0, 0.0]}, {"light": [math.nan, 1.0]}, {"smell": [0.0, 1.0]}])
def test_nonsense_in_a_bundle_is_refused(stored: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        load_usual(stored)


def test_a_model_of_before_knows_none_and_a_stored_one_the_same(
    trained: Inspector, bundle_path: Path, keys: Path, parts: list[Picture]
) -> None:
    loaded = Inspector.load(bundle_path, trusted_keys=keys, device="cpu")
    assert loaded.usual == trained.usual
    golden = Path(__file__).parent / "golden"
    old = Inspector.load(golden / "model.safetensors", trusted_keys=golden, device="cpu")
    assert old.inspect(parts[0]).conditions == {}


def test_varied_copies_do_not_widen_what_is_usual(good_images: list[Picture]) -> None:
    plain, varied = (
        train(good_images, tiny_config(training=settings), name="x")
        for settings in (tiny_config().training, replace(tiny_config().training, variants=1))
    )
    assert varied.usual == plain.usual
