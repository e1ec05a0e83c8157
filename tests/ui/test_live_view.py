from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PySide6.QtCore import QPointF
from screen_publisher import make_preview, make_status, make_verdict
from screen_states import deliver, show_pass

from station.types import Verdict
from ui.main_window import MainWindow
from ui.picture import from_preview
from ui.picture_view import MAX_ZOOM, PictureView

STEPS = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 400), st.floats(0, 300)), max_size=12)


@given(STEPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_one_zooms_the_picture_stays_in_view(
    app: object, steps: list[tuple[float, float, float]]
) -> None:
    view = PictureView(None, "view", "test")
    view.resize(400, 300)
    view.show_picture(from_preview(make_preview(3, size_px=(128, 96)), (400, 300)))
    for factor, x, y in steps:
        view.zoom_by(factor, QPointF(x, y))
        assert 1.0 <= view.zoom <= MAX_ZOOM
        target = view.target()
        assert target.left() <= 0.51
        assert target.top() <= 0.51
        assert target.right() >= 399.49
        assert target.bottom() >= 299.49
    view.fit()
    assert view.target().toRect().size() == view.picture.fitted.size()  # type: ignore[union-attr]


def test_zoom_keeps_the_point_under_the_finger(app: object) -> None:
    view = PictureView(None, "view", "test")
    view.resize(400, 300)
    view.show_picture(from_preview(make_preview(3, size_px=(128, 96)), (400, 300)))
    at = QPointF(250, 170)
    before = view._fraction_at(at)
    view.zoom_by(2.0, at)
    after = view._fraction_at(at)
    assert abs(before.x() - after.x()) < 1e-6
    assert abs(before.y() - after.y()) < 1e-6


def test_freezing_holds_a_part_while_the_line_goes_on(window: MainWindow) -> None:
    show_pass(window)
    window.rejects.cards[1].click()
    held = window.rejects.cards[1].part
    assert held is not None
    assert window.live.frozen
    assert window.live.picture is held.picture
    assert f"frozen: {held.note}" == window.live.accessibleDescription()
    assert window.live._thaw.isVisible()
    deliver(window, make_status(), make_verdict(4900), make_preview(4900))
    assert window.live.picture is held.picture
    assert window.verdict.accessibleDescription().startswith("PASS")
    window.live._thaw.click()
    assert not window.live.frozen
    assert window.live.picture is not None
    assert window.live.picture.part_seq == 4900
    assert not any(card.isChecked() for card in window.rejects.cards)


def test_card_of_the_held_part_stays_marked_when_new_rejects_come(window: MainWindow) -> None:
    show_pass(window)
    window.rejects.cards[0].click()
    held = window.rejects.cards[0].part
    deliver(window, make_status(), make_verdict(4901, Verdict.REJECT))
    assert [card.part is held for card in window.rejects.cards] == [
        card.isChecked() for card in window.rejects.cards
    ]
    assert window.rejects.cards[1].isChecked()


def test_opacity_steps_round(window: MainWindow) -> None:
    seen = [window.live.opacity]
    for _ in range(3):
        window.live._tools[3].click()
        seen.append(window.live.opacity)
    assert len(set(seen)) == 3
    assert seen[0] == seen[3]
