import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.button_surfaces import Material
from drivers.buttons import DEFECTS, RenderedPart, part_truth, render_part

MATERIALS: tuple[Material, ...] = ("wood", "plastic")
SURFACE_DEFECTS = set(DEFECTS) - {"deformation"}  # a bent outline moves the rim's shading beyond its mask

# Mean grey of an 8 x 8 grid of these 512 px pictures: tells when a change alters what a seed means.
GOLDEN = {
    "wood good 0": [
        [55, 57, 60, 60, 60, 61, 59, 57],
        [56, 62, 113, 126, 115, 86, 61, 57],
        [56, 108, 110, 113, 120, 122, 69, 57],
        [56, 112, 114, 100, 109, 139, 90, 53],
        [56, 110, 118, 109, 133, 162, 86, 50],
        [58, 82, 119, 134, 160, 142, 53, 53],
        [57, 55, 66, 88, 84, 55, 58, 56],
        [56, 56, 54, 55, 56, 55, 56, 58],
    ],
    "wood stain 4": [
        [57, 57, 56, 56, 59, 58, 55, 53],
        [54, 61, 115, 122, 115, 79, 57, 55],
        [54, 119, 105, 116, 121, 124, 65, 57],
        [64, 117, 99, 96, 118, 132, 82, 55],
        [61, 84, 92, 102, 111, 145, 73, 53],
        [57, 67, 97, 140, 165, 134, 51, 51],
        [57, 57, 79, 106, 98, 55, 54, 51],
        [55, 56, 55, 53, 53, 57, 58, 54],
    ],
    "plastic good 1": [
        [57, 60, 61, 61, 58, 54, 58, 65],
        [58, 57, 66, 120, 115, 75, 55, 56],
        [59, 65, 172, 138, 140, 148, 84, 52],
        [59, 109, 146, 122, 131, 157, 142, 49],
        [59, 114, 144, 133, 136, 175, 163, 49],
        [59, 83, 166, 160, 176, 211, 116, 49],
        [56, 56, 88, 122, 159, 118, 53, 54],
        [55, 54, 54, 51, 49, 49, 53, 54],
    ],
    "plastic chip 2": [
        [66, 67, 60, 57, 59, 64, 66, 64],
        [63, 66, 139, 169, 169, 123, 71, 69],
        [63, 110, 165, 164, 174, 168, 114, 69],
        [60, 148, 155, 148, 155, 186, 156, 57],
        [62, 136, 175, 152, 157, 199, 149, 54],
        [66, 80, 174, 195, 215, 209, 71, 55],
        [67, 67, 67, 107, 114, 69, 53, 55],
        [61, 62, 62, 60, 57, 56, 54, 53],
    ],
}


def part(
    index: int, truth: tuple[str, float], material: Material = "wood", size_px: int = 512
) -> RenderedPart:
    return render_part(
        seed=11,
        index=index,
        defect_rate=0,
        width_px=size_px,
        height_px=size_px,
        material=material,
        truth=truth,
    )


@given(
    seed=st.integers(0, 2**40), index=st.integers(0, 2**40), rates=st.tuples(st.floats(0, 1), st.floats(0, 1))
)
def test_a_higher_rate_adds_defects_and_changes_none(
    seed: int, index: int, rates: tuple[float, float]
) -> None:
    low, high = sorted(rates)
    defect, severity = part_truth(seed=seed, index=index, defect_rate=low)
    if defect:
        assert defect in DEFECTS
        assert 0 <= severity <= 1
        assert part_truth(seed=seed, index=index, defect_rate=high) == (defect, severity)
    else:
        assert severity == 0
    assert part_truth(seed=seed, index=index, defect_rate=0)[0] == ""
    assert part_truth(seed=seed, index=index, defect_rate=1)[0] in DEFECTS


def test_the_rate_is_the_share_of_defective_parts_and_every_defect_occurs() -> None:
    truths = [part_truth(seed=5, index=index, defect_rate=0.3)[0] for index in range(4000)]
    assert np.mean([truth != "" for truth in truths]) == pytest.approx(0.3, abs=0.03)
    assert set(truths) == {"", *DEFECTS}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), index=st.integers(0, 10_000))
def test_a_picture_is_a_pure_function_of_seed_and_index(seed: int, index: int) -> None:
    def render(defect_rate: float, at: int = index) -> RenderedPart:
        return render_part(seed=seed, index=at, defect_rate=defect_rate, width_px=96, height_px=80)

    first = render(0.5)
    render(0.5, index + 1)
    again = render(0.5)
    np.testing.assert_array_equal(first.image_rgb, again.image_rgb)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert (first.defect, first.severity) == part_truth(seed=seed, index=index, defect_rate=0.5)
    assert first.mask.any() == bool(first.defect)
    if not first.defect:
        np.testing.assert_array_equal(first.image_rgb, render(0.0).image_rgb)
    assert not np.array_equal(first.image_rgb, render(0.5, index + 1).image_rgb)


@pytest.mark.parametrize(("width_px", "height_px"), [(64, 64), (320, 200), (150, 400)])
@pytest.mark.parametrize("material", MATERIALS)
def test_any_size_and_read_only(material: Material, width_px: int, height_px: int) -> None:
    for index, defect in enumerate(DEFECTS):
        made = render_part(
            seed=1,
            index=index,
            defect_rate=1,
            width_px=width_px,
            height_px=height_px,
            material=material,
            truth=(defect, 1.0),
        )
        assert made.image_rgb.shape == (height_px, width_px, 3)
        assert made.image_rgb.dtype == np.uint8
        assert made.mask.shape == (height_px, width_px)
        assert made.mask.dtype == np.bool_
        assert made.mask.any()
        assert not made.image_rgb.flags.writeable
        assert not made.mask.flags.writeable


@pytest.mark.parametrize("severity", [0.0, 1.0])
@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("material", MATERIALS)
def test_defects_show_where_their_mask_says_and_nowhere_else(
    material: Material, defect: str, severity: float
) -> None:
    for index in range(3):
        bad, good = part(index, (defect, severity), material), part(index, ("", 0.0), material)
        difference = np.abs(bad.image_rgb.astype(int) - good.image_rgb).max(axis=2)
        assert bad.mask.sum() >= 60
        assert difference[bad.mask].mean() >= 8  # four times the sensor's noise
        if defect in SURFACE_DEFECTS:
            near = cv2.dilate(bad.mask.astype(np.uint8), np.ones((41, 41), np.uint8)) > 0
            assert difference[~near].max() <= 12


@pytest.mark.parametrize("defect", ["scratch", "crack", "stain", "contamination"])
def test_a_surface_defect_does_not_float_in_a_hole(defect: str) -> None:
    hidden = 0
    for index in range(12):
        bad, good = part(index, (defect, 1.0), size_px=256), part(index, ("", 0.0), size_px=256)
        in_hole = cv2.erode((good.image_rgb.max(axis=2) < 32).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert in_hole.sum() > 100
        assert not (bad.mask & in_hole).any()
        hidden += int((np.abs(bad.image_rgb.astype(int) - good.image_rgb).max(axis=2)[in_hole] > 12).sum())
    assert hidden == 0


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_worse_defect_is_larger(defect: str) -> None:
    areas = [
        np.mean([part(index, (defect, severity), size_px=256).mask.sum() for index in range(6)])
        for severity in (0.0, 0.5, 1.0)
    ]
    assert areas[0] < areas[1] <= areas[2]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    material, defect, index = name.split()
    made = part(int(index), (defect if defect != "good" else "", 0.8), material)  # type: ignore[arg-type]
    grid = cv2.resize(made.image_rgb, (8, 8), interpolation=cv2.INTER_AREA).mean(axis=2)
    np.testing.assert_allclose(grid, np.array(GOLDEN[name]), atol=2.5)
