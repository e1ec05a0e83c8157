"""What the operator sees and hears of each state."""

import time
from collections import Counter

import pytest
from PySide6.QtGui import QColor, QImage
from PySide6.QtWidgets import QApplication, QWidget
from screen_publisher import make_alarm, make_map, make_preview, make_status, make_verdict
from screen_states import STATES, TWO_REGIONS, deliver, show_pass, show_silence

from station.types import DeviceStatus, EngineState, LedgerSnapshot, Verdict
from ui import theme
from ui.main_window import MainWindow


def main_colour(widget: QWidget) -> str:
    image = widget.grab().toImage()
    step = 4
    seen = Counter(
        image.pixel(x, y) for x in range(0, image.width(), step) for y in range(0, image.height(), step)
    )
    return QColor(seen.most_common(1)[0][0]).name()


def differing(first: QImage, second: QImage) -> int:
    step = 3
    points = ((x, y) for x in range(0, first.width(), step) for y in range(0, first.height(), step))
    return sum(first.pixel(x, y) != second.pixel(x, y) for x, y in points)


@pytest.mark.parametrize(
    ("state", "said", "colour"),
    [
        ("pass", "PASS: 58", theme.OK),
        ("reject", "REJECT: 1.40 × the limit; score 0.870, limit 0.620", theme.NG),
        ("recheck", "RECHECK: above recheck limit", theme.WARN),
        ("not_inspected", "NOT INSPECTED: frame missing", theme.PALE),
        ("paused", "PAUSED: changeover", theme.PANEL),
        ("fault", "FAULT: camera not ready", theme.WARN),
        ("silence", "no signal", theme.PANEL),
        ("start", "no signal", theme.PANEL),
        ("ready", "READY, no verdict yet", theme.PANEL),
    ],
)
def test_verdict_panel(window: MainWindow, state: str, said: str, colour: QColor) -> None:
    STATES[state](window)
    assert window.verdict.accessibleDescription().startswith(said)
    assert main_colour(window.verdict) == colour.name()


def test_every_verdict_has_its_own_shape(window: MainWindow) -> None:
    shapes = []
    for verdict in Verdict:
        deliver(window, make_status(), make_verdict(1, verdict))
        image = window.verdict.grab().toImage()
        k = window.verdict.k
        icon = image.copy(round(24 * k), round(20 * k), round(164 * k), round(170 * k))
        ground = icon.pixel(icon.width() // 2, 1)
        shapes.append(
            {(x, y) for x in range(icon.width()) for y in range(icon.height()) if icon.pixel(x, y) != ground}
        )
    for index, shape in enumerate(shapes):
        for other in shapes[:index]:
            assert len(shape ^ other) > 0.2 * len(shape | other)  # told apart without colour


def test_good_part_does_not_glow(window: MainWindow) -> None:
    good = make_map((0.5, 0.5, 0.1, 88))  # close to the limit, not over it
    assert 100 < good.max() <= 128
    deliver(window, make_status(), make_verdict(1), make_preview(1, Verdict.PASS, good))
    with_heatmap = window.live.grab().toImage()
    window.live.show_heatmap(False)
    assert differing(with_heatmap, window.live.grab().toImage()) == 0


def test_defect_glows_until_the_heatmap_is_hidden(window: MainWindow) -> None:
    deliver(
        window, make_status(), make_verdict(1, Verdict.REJECT), make_preview(1, Verdict.REJECT, TWO_REGIONS)
    )
    glowing = window.live.grab().toImage()
    window.footer.heatmap.click()
    hidden = window.live.grab().toImage()
    assert differing(glowing, hidden) > 500
    window.footer.heatmap.click()
    assert differing(glowing, window.live.grab().toImage()) == 0


def test_silence_greys_the_picture_and_forgets_the_verdict(window: MainWindow) -> None:
    show_silence(window)
    assert window.live.accessibleDescription().startswith("NO SIGNAL  3.")
    picture = window.live.grab().toImage()
    middle = picture.height() // 4
    for x in range(picture.width() // 3, picture.width() // 2, 7):
        colour = picture.pixelColor(x, middle)
        assert max(colour.red(), colour.green(), colour.blue()) < 130
        assert abs(colour.red() - colour.blue()) < 12
    assert "unknown" in window.header.accessibleDescription()
    assert "ok" not in window.header.accessibleDescription()
    assert "Rejected –" in window.counters.accessibleDescription()
    assert window.alarm_strip.accessibleDescription() == "alarms unknown"
    deliver(window, make_status())
    assert (
        window.verdict.accessibleDescription() == "RUNNING, no verdict yet"
    )  # the old one does not come back


def test_a_verdict_heard_without_a_status_is_not_shown(window: MainWindow) -> None:
    show_silence(window)
    deliver(window, None, make_verdict(4999))
    assert window.verdict.accessibleDescription() == "no signal"


def test_a_part_without_picture_is_said(window: MainWindow) -> None:
    STATES["not_inspected"](window)
    assert "no picture of part 4815" in window.live.accessibleDescription()
    deliver(window, make_status(), make_verdict(4816), make_preview(4816))
    assert "no picture" not in window.live.accessibleDescription()


def test_counters_add_up(window: MainWindow) -> None:
    deliver(
        window,
        make_status(
            shift_counts={"PASS": 90, "RECHECK": 4, "REJECT": 5, "NOT_INSPECTED": 1}, reject_streak=3
        ),
    )
    said = window.counters.accessibleDescription()
    for expected in (
        "Yield this shift 90.0",
        "Rejected 5",
        "Inspected 99",
        "Passed 90",
        "NG in a row 3",
        "Rechecks 4",
        "Not inspected 1",
    ):
        assert expected in said


def test_ledger_is_live_and_warns_when_it_does_not_hold(window: MainWindow) -> None:
    deliver(window, make_status(ledger=LedgerSnapshot(10, 6, 1, 1, 1, 1, 9)))
    said = window.ledger.accessibleDescription()
    assert "triggered 10 = 6 pass + 1 recheck + 1 reject + 1 not inspected + 1 in flight; rows 9" in said
    assert main_colour(window.ledger) == theme.PANEL.name()
    deliver(window, make_status(ledger=LedgerSnapshot(11, 6, 1, 1, 1, 1, 9)))
    assert main_colour(window.ledger) == theme.WARN.name()


def test_a_device_s_fault_changes_its_words_and_its_shape(window: MainWindow) -> None:
    deliver(window, make_status())
    well = window.header.grab().toImage()
    devices = (DeviceStatus("camera", "fault", "cable"),)
    deliver(window, make_status(devices=devices))
    assert "camera fault" in window.header.accessibleDescription()
    broken = window.header.grab().toImage()
    assert any(
        broken.pixelColor(x, broken.height() // 2).name() == theme.NG.name() for x in range(broken.width())
    )
    assert differing(well, broken) > 0


def test_below_target_is_not_amber_while_no_alarm_says_so(window: MainWindow) -> None:
    deliver(window, make_status(shift_counts={"PASS": 70, "REJECT": 30}))
    image = window.counters.grab().toImage()
    names = {image.pixelColor(x, y).name() for x in range(image.width()) for y in range(0, image.height(), 2)}
    assert theme.WARN.name() not in names


def test_rows_that_do_not_reach_the_disk_are_told_beside_the_ledger(window: MainWindow) -> None:
    deliver(window, make_status(ledger=LedgerSnapshot(812, 700, 20, 80, 11, 1, 811)))
    assert window.ledger.accessibleDescription().endswith("=  balanced")
    assert main_colour(window.ledger) == theme.PANEL.name()
    deliver(window, make_status(ledger=LedgerSnapshot(812, 700, 20, 80, 11, 1, 713)))
    assert window.ledger.accessibleDescription().endswith("98 ROWS NOT ON THE DISK YET")
    assert main_colour(window.ledger) == theme.WARN.name()


def test_an_alarm_that_is_there_comes_before_one_that_is_gone(window: MainWindow) -> None:
    gone = make_alarm(key="a", priority="high", title="20 rejects in a row", active=False)
    deliver(window, make_status(alarms=(gone, make_alarm(key="b", priority="medium", title="Disk full"))))
    assert "Disk full" in window.alarm_strip.accessibleDescription()


def test_alarm_strip_shows_the_first_that_wants_attention(window: MainWindow) -> None:
    alarms = (
        make_alarm(key="a", priority="high", title="Old", acknowledged=True),
        make_alarm(key="b", priority="low", title="Low"),
        make_alarm(key="c", priority="medium", title="Medium"),
        make_alarm(key="d", priority="high", title="Gone", acknowledged=True, active=False),
    )
    deliver(window, make_status(alarms=alarms))
    assert "Medium" in window.alarm_strip.accessibleDescription()
    assert window.footer.alarms.text() == "Alarms (3)"
    assert main_colour(window.alarm_strip) == theme.WARN.name()
    deliver(window, make_status())
    assert window.alarm_strip.accessibleDescription() == "no active alarms"
    assert main_colour(window.alarm_strip) == theme.PANEL.name()


@pytest.mark.parametrize(
    ("state", "label"),
    [
        (EngineState.RUNNING, "Pause line"),
        (EngineState.FAULT, "Pause line"),
        (EngineState.PAUSED, "Start line"),
        (EngineState.READY, "Start line"),
        (EngineState.STOPPED, "Start line"),
    ],
)
def test_labels_are_actions(window: MainWindow, state: EngineState, label: str) -> None:
    deliver(window, make_status(state=state))
    assert window.footer.line.text() == label
    assert window.footer.line.shortcut().toString() == "Space"
    assert window.footer.heatmap.text() == "Hide heatmap"
    window.footer.heatmap.click()
    assert window.footer.heatmap.text() == "Show heatmap"
    assert window.footer.heatmap.shortcut().toString() == "H"


def test_trend_shows_a_dip_and_survives_one_point(window: MainWindow) -> None:
    now_s = time.time()
    deliver(window, make_status(trend=((now_s, 100.0),)))
    window.trend.grab()
    flat = window.trend.grab().toImage()
    dip = tuple((now_s - 60 * minute, 40.0 if minute == 5 else 99.0) for minute in range(20, -1, -1))
    deliver(window, make_status(trend=dip))
    assert "now 99.0 %" in window.trend.accessibleDescription()
    assert differing(flat, window.trend.grab().toImage()) > 0


def test_a_state_is_painted_the_same_twice(app: QApplication, window: MainWindow) -> None:
    show_pass(window)
    first = window.verdict.grab().toImage()
    assert differing(first, window.verdict.grab().toImage()) == 0
