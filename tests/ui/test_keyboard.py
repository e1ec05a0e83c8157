from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from screen_publisher import make_status
from screen_states import deliver, show_pass

from station.types import EngineState
from ui.main_window import MainWindow

WaitUntil = Callable[[Callable[[], bool]], None]


def test_the_screen_can_be_worked_by_keyboard(
    app: QApplication, window: MainWindow, wait_until: WaitUntil
) -> None:
    show_pass(window)
    window.activateWindow()
    app.processEvents()
    key = Qt.Key
    presses: list[tuple[Qt.Key, Callable[[], bool]]] = [
        (key.Key_H, lambda: window.footer.heatmap.text() == "Show heatmap"),
        (key.Key_Plus, lambda: window.live.zoom > 1),
        (key.Key_0, lambda: window.live.zoom == 1),
        (key.Key_Space, window.pause_page.isVisible),
        (key.Key_Escape, window.live.isVisible),
        (key.Key_L, window.alarms_page.isVisible),
        (key.Key_E, lambda: window.engineer_page.isVisible() and not window.alarms_page.isVisible()),
        (key.Key_E, window.live.isVisible),
    ]
    for pressed, happens in presses:
        assert not happens()
        QTest.keyClick(window, pressed)
        wait_until(happens)  # Qt shows the button pressed for a moment before it clicks
    window.rejects.cards[0].click()
    assert window.live.frozen
    QTest.keyClick(window, key.Key_Escape)
    wait_until(lambda: not window.live.frozen)


def test_a_shortcut_survives_every_new_label(
    app: QApplication, window: MainWindow, wait_until: WaitUntil
) -> None:
    for state in (EngineState.RUNNING, EngineState.PAUSED, EngineState.RUNNING):
        deliver(window, make_status(state=state))
    window.activateWindow()
    app.processEvents()
    QTest.keyClick(window, Qt.Key.Key_Space)
    wait_until(window.pause_page.isVisible)


def test_every_button_tells_its_key(window: MainWindow) -> None:
    for button in (*window.footer.buttons, *window.live._tools):
        assert button.shortcut().toString()
        assert button.toolTip().endswith("]")
