import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PySide6.QtCore import QPointF, Qt
from PySide6.QtWidgets import QApplication
from screen_publisher import make_map

from ui.overlay import LIMIT_U8, RAMP_BGRA, contours, heatmap_image

MAPS = npst.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)))


def test_nothing_glows_up_to_the_limit_and_everything_does_beyond() -> None:
    alpha = RAMP_BGRA[:, 3].astype(int)
    assert not RAMP_BGRA[: LIMIT_U8 + 1].any()
    assert (np.diff(alpha[LIMIT_U8:]) >= 0).all()
    assert alpha[LIMIT_U8 + 1] > 0
    assert alpha[255] < 255  # the defect stays visible through the hottest colour


def test_ramp_is_premultiplied() -> None:
    assert (RAMP_BGRA[:, :3] <= RAMP_BGRA[:, 3:]).all()


@given(MAPS)
@settings(max_examples=60, deadline=None)
def test_heatmap_has_the_map_s_size_and_glows_exactly_above_the_limit(map_u8: np.ndarray) -> None:
    image = heatmap_image(map_u8)
    assert (image.height(), image.width()) == map_u8.shape
    for y, x in np.ndindex(map_u8.shape):
        assert (image.pixelColor(x, y).alpha() > 0) == (map_u8[y, x] > LIMIT_U8)


@given(MAPS)
@example(np.array([[0, 129, 0]], np.uint8))
@settings(max_examples=80, deadline=None)
def test_contours_exist_exactly_when_something_is_above_the_limit(map_u8: np.ndarray) -> None:
    lines = contours(map_u8)
    assert bool(lines) == bool((map_u8 > LIMIT_U8).any())
    for line in lines:
        box = line.boundingRect()
        assert box.left() >= 0.0
        assert box.top() >= 0.0
        assert box.right() <= 1.0 + 1e-9
        assert box.bottom() <= 1.0 + 1e-9


def test_each_region_is_enclosed_largest_first(app: QApplication) -> None:
    lines = contours(make_map((0.3, 0.3, 0.03, 200), (0.7, 0.6, 0.07, 200)))
    assert len(lines) == 2
    large, small = lines
    assert large.containsPoint(QPointF(0.7, 0.6), Qt.FillRule.OddEvenFill)
    assert small.containsPoint(QPointF(0.3, 0.3), Qt.FillRule.OddEvenFill)
    assert not small.containsPoint(QPointF(0.7, 0.6), Qt.FillRule.OddEvenFill)


def test_a_region_at_the_edge_is_enclosed_too() -> None:
    (line,) = contours(make_map((0.0, 0.5, 0.05, 220)))
    assert line.boundingRect().left() == 0.0


def test_empty_map_has_no_contours() -> None:
    assert contours(np.empty((0, 0), np.uint8)) == ()
