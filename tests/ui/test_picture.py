import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from screen_publisher import make_map, make_preview

from station.types import Verdict
from ui.picture import fit, from_preview

SIDE = st.integers(1, 90)


@given(SIDE, SIDE, SIDE, SIDE)
@settings(max_examples=100, deadline=None)
def test_fitted_picture_fills_the_box_and_keeps_its_aspect(
    width: int, height: int, box_width: int, box_height: int
) -> None:
    fitted = fit(np.full((height, width, 3), 77, np.uint8), (box_width, box_height))
    assert fitted.shape[1] <= box_width
    assert fitted.shape[0] <= box_height
    assert fitted.shape[1] == box_width or fitted.shape[0] == box_height
    share = min(box_width / width, box_height / height)
    assert abs(fitted.shape[1] - width * share) <= 1
    assert abs(fitted.shape[0] - height * share) <= 1
    assert (fitted == 77).all()


def test_colours_keep_their_order() -> None:
    image_rgb = np.zeros((4, 6, 3), np.uint8)
    image_rgb[:] = (200, 100, 50)
    preview = make_preview(width=6, height=4, image_rgb=image_rgb.tobytes())
    picture = from_preview(preview, (12, 12))
    for image in (picture.image, picture.fitted):
        colour = image.pixelColor(1, 1)
        assert (colour.red(), colour.green(), colour.blue()) == (200, 100, 50)
    assert (picture.image.width(), picture.image.height()) == (6, 4)
    assert (picture.fitted.width(), picture.fitted.height()) == (12, 8)


def test_picture_owns_its_pixels() -> None:
    picture = from_preview(make_preview(), (100, 100))
    before = picture.image.pixelColor(256, 100).rgb()
    junk = [np.random.default_rng(seed).bytes(512 * 512 * 3) for seed in range(4)]
    assert picture.image.pixelColor(256, 100).rgb() == before
    assert junk


def test_preview_without_map_or_image_is_a_picture_without_them() -> None:
    no_map = from_preview(make_preview(map_u8=np.empty((0, 0), np.uint8)), (50, 50))
    assert no_map.heatmap is None
    assert no_map.contours == ()
    nothing = from_preview(make_preview(width=0, height=0, image_rgb=b""), (50, 50))
    assert nothing.image.isNull()


def test_map_becomes_heatmap_and_contours() -> None:
    preview = make_preview(5, Verdict.REJECT, make_map((0.5, 0.5, 0.05, 200)))
    picture = from_preview(preview, (50, 50))
    assert picture.heatmap is not None
    assert len(picture.contours) == 1
