from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from drivers.buttons import DEFECTS, RenderedPart
from varad_core.alignment import (
    DiscAlignment,
    WholeImage,
    find_disc,
    fit_alignment,
    load_alignment,
    map_to_image,
)
from varad_core.types import DataError

Image = NDArray[np.uint8]
Render = Callable[..., RenderedPart]


@pytest.fixture(scope="module")
def disc(good_images: list[Image]) -> DiscAlignment:
    alignment = fit_alignment("auto", good_images)
    assert isinstance(alignment, DiscAlignment)
    return alignment


def _moved(image: Image, turn_deg: float, scale: float, shift: tuple[float, float]) -> Image:
    side = image.shape[0]
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), turn_deg, scale)
    matrix[:, 2] += shift
    return np.asarray(cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE), np.uint8)


@pytest.mark.parametrize(
    ("turn_deg", "scale", "shift"), [(0, 0.9, (8, -5)), (33, 1.0, (-6, 4)), (77, 0.8, (3, 9))]
)
def test_centre_scale_and_phase_are_recovered(
    disc: DiscAlignment, good_images: list[Image], turn_deg: float, scale: float, shift: tuple[float, float]
) -> None:
    for image in good_images[:4]:
        before, phase_before, _ = disc.locate(image)
        after, phase_after, found = disc.locate(_moved(image, turn_deg, scale, shift))
        middle = (image.shape[0] - 1) / 2
        turn = np.radians(turn_deg)
        x, y = before.x_px - middle, before.y_px - middle
        expected_x = middle + shift[0] + scale * (x * np.cos(turn) + y * np.sin(turn))
        expected_y = middle + shift[1] + scale * (-x * np.sin(turn) + y * np.cos(turn))
        assert found
        assert abs(after.x_px - expected_x) < 1.0
        assert abs(after.y_px - expected_y) < 1.0
        assert abs(after.radius_px / before.radius_px - scale) < 0.02
        # Four holes look the same every quarter turn; image rotation by OpenCV is counter-clockwise.
        error = (phase_after - phase_before + turn + np.pi / 4) % (np.pi / 2) - np.pi / 4
        assert abs(np.degrees(error)) < 3.0


def test_canonical_images_agree_more_than_raw_ones(disc: DiscAlignment, good_images: list[Image]) -> None:
    raw = np.stack([cv2.resize(image, (96, 96)) for image in good_images]).astype(np.float32)
    aligned = np.stack([disc.align(image, 96).image_rgb for image in good_images]).astype(np.float32)
    middle = slice(30, 66)  # where the holes are
    assert aligned[:, middle, middle].std(0).mean() < 0.8 * raw[:, middle, middle].std(0).mean()


@pytest.mark.parametrize("defect", DEFECTS)
def test_damaged_parts_are_found_where_they_are(disc: DiscAlignment, part: Render, defect: str) -> None:
    good, _, _ = disc.locate(part(3).image_rgb)
    bad, _, found = disc.locate(part(3, defect, 1.0).image_rgb)
    assert found
    assert np.hypot(bad.x_px - good.x_px, bad.y_px - good.y_px) < 0.06 * good.radius_px
    assert abs(bad.radius_px / good.radius_px - 1) < 0.06


@pytest.mark.parametrize("kind", ["black", "white", "noise", "stripe", "tiny"])
def test_odd_images_fall_back_and_say_so(disc: DiscAlignment, kind: str) -> None:
    rng = np.random.default_rng(0)
    image = {
        "black": np.zeros((120, 160, 3), np.uint8),
        "white": np.full((64, 64, 3), 255, np.uint8),
        "noise": rng.integers(0, 256, (100, 100, 3), dtype=np.uint8),
        "stripe": np.repeat(np.tile(np.uint8([0, 0, 255, 255]), 30)[None, :, None], 90, 0).repeat(3, 2),
        "tiny": np.zeros((16, 16, 3), np.uint8),
    }[kind]
    aligned = disc.align(image, 96)
    assert not aligned.found
    assert aligned.image_rgb.shape == (96, 96, 3)
    assert find_disc(image) is None


def test_auto_leaves_textures_alone() -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(90, 160, (80, 120, 3), dtype=np.uint8) for _ in range(8)]
    assert isinstance(fit_alignment("auto", images), WholeImage)
    with pytest.raises(DataError, match="--alignment none"):
        fit_alignment("disc", images)


def test_plain_discs_keep_their_rotation() -> None:
    rng = np.random.default_rng(2)
    images = []
    for _ in range(10):
        image = rng.normal(40, 3, (128, 128, 3))
        cv2.circle(image, (int(rng.integers(56, 72)), int(rng.integers(56, 72))), 40, (200, 190, 180), -1)
        images.append((image + rng.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8))
    alignment = fit_alignment("auto", images)
    assert isinstance(alignment, DiscAlignment)
    assert alignment.template is None


def test_alignment_survives_its_tensors(disc: DiscAlignment, good_images: list[Image]) -> None:
    again = load_alignment(disc.name, disc.tensors())
    assert np.array_equal(again.align(good_images[0], 96).image_rgb, disc.align(good_images[0], 96).image_rgb)


@pytest.mark.parametrize("size", [(192, 192), (120, 300)])
def test_a_mark_on_the_canonical_map_lands_on_its_place_in_the_image(size: tuple[int, int]) -> None:
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    row, column = height // 3, width // 4
    aligned = WholeImage().align(image, 96)
    canonical = np.zeros((48, 48), np.float32)
    canonical[round(row / height * 48), round(column / width * 48)] = 1.0
    laid = map_to_image(canonical, aligned, (height, width), (60, 60))
    at_row, at_column = np.unravel_index(laid.argmax(), laid.shape)
    assert abs(at_row / 60 - row / height) < 0.04
    assert abs(at_column / 60 - column / width) < 0.04


def test_map_of_an_aligned_part_lies_over_the_part(disc: DiscAlignment, part: Render) -> None:
    image = part(7).image_rgb
    found, _, _ = disc.locate(image)
    aligned = disc.align(image, 96)
    y, x = np.mgrid[:48, :48]
    inside = (np.hypot(x - 23.5, y - 23.5) < 10).astype(np.float32)
    laid = map_to_image(inside, aligned, (image.shape[0], image.shape[1]), (96, 96))
    rows, columns = np.nonzero(laid > 0.5)
    scale = image.shape[0] / 96
    assert abs((columns.mean() + 0.5) * scale - 0.5 - found.x_px) < 1.5
    assert abs((rows.mean() + 0.5) * scale - 0.5 - found.y_px) < 1.5


@pytest.mark.parametrize("shape", [(250, 499), (499, 250), (200, 1600)])
def test_a_thin_line_is_seen_wherever_it_lies(shape: tuple[int, int]) -> None:
    """One side shrinks, the other grows."""
    long_axis = int(np.argmax(shape))
    depths = []
    for place in range(100, 124):
        image = np.full((*shape, 3), 200, np.uint8)
        np.moveaxis(image, long_axis, 0)[place] = 0
        aligned = WholeImage().align(image, 256).image_rgb
        depths.append(200 - int(aligned.min()))
    assert min(depths) > 0.4 * 200 * 256 / max(shape)  # halved where it falls between two cells
