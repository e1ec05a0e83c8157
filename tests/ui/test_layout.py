from collections.abc import Iterator
from itertools import combinations

import pytest
from PySide6.QtCore import QRect, QRectF
from PySide6.QtGui import QColor, QFontMetricsF
from PySide6.QtWidgets import QApplication, QWidget
from screen_states import STATES

from ui.canvas import LEFT, Canvas
from ui.footer import Footer
from ui.main_window import MainWindow

SIZES = ((1920, 1080), (1280, 800), (1366, 768), (3840, 2160))
Written = tuple[
    QWidget, QRectF, str, str
]  # where, the box the text takes, what was asked for, what was painted


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Written]]:
    """Every line of text that is painted, with the room it takes."""
    texts: list[Written] = []
    asked = [""]
    paint_text, draw = Canvas.text, Canvas.drawText

    def spy_text(self: Canvas, box: QRectF, text: str, *arguments: object, **named: object) -> float:
        asked[0] = text
        return paint_text(self, box, text, *arguments, **named)  # type: ignore[arg-type]

    def spy_draw(self: Canvas, box: QRectF, flags: int, text: str) -> None:
        widget = self.device()
        assert isinstance(widget, QWidget)
        used = QFontMetricsF(self.font()).boundingRect(box, int(flags), text)
        texts.append((widget, used, asked[0], text))
        draw(self, box, flags, text)

    monkeypatch.setattr(Canvas, "text", spy_text)
    monkeypatch.setattr(Canvas, "drawText", spy_draw)
    yield texts


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", STATES)
def test_nothing_overlaps_or_is_cut(
    app: QApplication, window: MainWindow, written: list[Written], state: str, size: tuple[int, int]
) -> None:
    window.resize(*size)
    STATES[state](window)
    app.processEvents()
    written.clear()
    window.grab()
    check_widgets(window)
    check_texts(written)


def check_widgets(parent: QWidget) -> None:
    children = [
        child for child in parent.children() if isinstance(child, QWidget) and child.isVisibleTo(parent)
    ]
    for child in children:
        name = child.accessibleName() or type(child).__name__
        assert parent.rect().contains(child.geometry()), f"{name} {child.geometry()} leaves {parent.rect()}"
        assert child.width() > 0
        assert child.height() > 0
        check_widgets(child)
    for first, second in combinations(children, 2):
        assert not first.geometry().intersects(second.geometry()), (
            f"{first.accessibleName()} {first.geometry()} on {second.accessibleName()} {second.geometry()}"
        )


def check_texts(written: list[Written]) -> None:
    assert written
    by_widget: dict[QWidget, list[tuple[QRectF, str]]] = {}
    for widget, used, _, text in written:
        room = QRectF(widget.rect()).adjusted(-1, -3, 1, 3)  # a font's line is higher than its letters
        assert room.contains(used), f"{text!r} {used} leaves {type(widget).__name__} {widget.rect()}"
        by_widget.setdefault(widget, []).append((used, text))
        for child in widget.children():
            if isinstance(child, QWidget) and child.isVisibleTo(widget):
                assert not child.geometry().intersects(core(used)), (
                    f"{text!r} lies under {child.accessibleName()}"
                )
    for widget, texts in by_widget.items():
        for (first, text), (second, other) in combinations(texts, 2):
            assert not core(first).intersects(core(second)), f"{type(widget).__name__}: {text!r} on {other!r}"


def core(used: QRectF) -> QRect:
    """Where the letters are: lines may touch, letters may not."""
    height = used.height()
    return used.adjusted(1, 0.2 * height, -1, -0.2 * height).toAlignedRect()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    "state", ["pass", "reject", "recheck", "not_inspected", "paused", "fault", "silence", "ready"]
)
def test_what_must_be_read_is_never_shortened(
    app: QApplication, window: MainWindow, written: list[Written], state: str, size: tuple[int, int]
) -> None:
    window.resize(*size)
    STATES[state](window)
    written.clear()
    window.grab()
    own = {
        window.verdict,
        window.counters,
        window.alarm_strip,
        window.ledger,
        window.trend,
        *window.footer.buttons,
    }
    shortened = [asked for widget, _, asked, text in written if widget in own and "…" in text]
    assert not shortened


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_sizes_that_were_asked_for(window: MainWindow, size: tuple[int, int]) -> None:
    window.resize(*size)
    k = min(size[0] / 1920, size[1] / 1080)
    assert window.verdict.height() >= 300 * k
    assert window.verdict.width() == pytest.approx(700 * k, abs=1)
    assert window.trend.height() >= 180 * k - 1
    assert window.alarm_strip.height() == pytest.approx(88 * k, abs=1)
    assert all(button.height() >= 72 * k for button in window.footer.buttons)
    assert len([card for card in window.rejects.cards if card.isVisible()]) == (
        4 if size[0] / size[1] >= 1.7 else 5
    )


def test_an_alarm_does_not_move_the_picture(window: MainWindow) -> None:
    STATES["pass"](window)
    before = window.live.geometry(), window.verdict.geometry()
    STATES["fault"](window)
    assert (window.live.geometry(), window.verdict.geometry()) == before


def test_every_control_has_a_name_and_a_description(window: MainWindow) -> None:
    for state in ("reject", "review", "alarms", "pause_page"):
        STATES[state](window)
    for widget in window.findChildren(QWidget):
        if not isinstance(widget, Footer):
            assert widget.accessibleName(), type(widget).__name__
            if widget is not window.rejects:
                assert widget.accessibleDescription(), widget.accessibleName()


def test_text_shrinks_before_it_is_shortened(app: QApplication, written: list[Written]) -> None:
    widget = QWidget()
    with Canvas(widget) as canvas:
        full_px = canvas.text(QRectF(0, 0, 500, 40), "INSPECTED", 30, QColor("white"), LEFT)
        shrunk_px = canvas.text(
            QRectF(0, 0, full_px - 8, 40), "INSPECTED", 30, QColor("white"), LEFT, shrink_to_px=20
        )
        cut_px = canvas.text(
            QRectF(0, 0, full_px / 2, 40), "INSPECTED", 30, QColor("white"), LEFT, shrink_to_px=29
        )
    assert [text for _, _, _, text in written][:2] == ["INSPECTED", "INSPECTED"]
    assert written[2][3].endswith("…")
    assert shrunk_px <= full_px - 8
    assert cut_px <= full_px / 2
