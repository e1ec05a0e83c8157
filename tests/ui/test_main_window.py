"""The window on real sockets."""

import threading
from collections.abc import Callable
from pathlib import Path

from PySide6.QtWidgets import QApplication
from screen_publisher import (
    HOST,
    ScreenPublisher,
    make_alarm,
    make_map,
    make_preview,
    make_status,
    make_verdict,
)
from screen_states import deliver, recorded, show_pass
from test_history import record_parts

from station.types import EngineState, StatusMessage, Verdict
from ui.commands import Commands
from ui.feed import Feed
from ui.history import History
from ui.main_window import MainWindow

WaitUntil = Callable[[Callable[[], bool]], None]


def until_said(
    window: MainWindow, publisher: ScreenPublisher, status: StatusMessage, wait_until: WaitUntil
) -> None:
    """Publish until the subscription stands and the status is on the screen."""

    def said() -> bool:
        publisher.send(status)
        return status.state in window.verdict.accessibleDescription()

    wait_until(said)


def test_a_part_travels_from_the_socket_to_the_screen(
    window: MainWindow, publisher: ScreenPublisher, wait_until: WaitUntil
) -> None:
    window.begin()
    until_said(window, publisher, make_status(), wait_until)
    publisher.send(make_verdict(77, Verdict.REJECT))
    hot = make_map((0.5, 0.5, 0.05, 200))

    def arrived() -> bool:
        publisher.send(make_preview(77, Verdict.REJECT, hot))
        return window.live.picture is not None

    wait_until(arrived)
    wait_until(lambda: window.verdict.accessibleDescription().startswith("REJECT"))
    wait_until(
        lambda: window.rejects.cards[0].part is not None and window.rejects.cards[0].part.picture is not None
    )
    assert "part 77" in window.rejects.cards[0].accessibleDescription()
    assert window.live.picture is not None
    assert (
        window.live.picture.fitted.size() == window.live.target().size().toSize()
    )  # resized off the GUI thread


def test_a_dead_engine_is_no_signal_and_a_new_one_recovers(
    window: MainWindow, port: int, wait_until: WaitUntil
) -> None:
    window.begin()
    with ScreenPublisher(port) as publisher:
        until_said(window, publisher, make_status(), wait_until)
    wait_until(lambda: window.live.accessibleDescription().startswith("NO SIGNAL"))
    assert window.verdict.accessibleDescription() == "no signal"
    with ScreenPublisher(port) as publisher:
        until_said(window, publisher, make_status(), wait_until)
    assert "camera ok" in window.header.accessibleDescription()


def test_pausing_asks_why_and_tells_the_engine(
    window: MainWindow, publisher: ScreenPublisher, wait_until: WaitUntil
) -> None:
    window.begin()
    until_said(window, publisher, make_status(), wait_until)
    window.footer.line.click()
    assert window.pause_page.isVisible()
    assert not publisher.commands
    window.pause_page.buttons[1].click()
    wait_until(lambda: bool(publisher.commands))
    assert publisher.commands == [{"command": "pause", "user": "M. Rossi", "reason": "jam"}]
    assert window.live.isVisible()
    until_said(window, publisher, make_status(state=EngineState.PAUSED), wait_until)
    window.footer.line.click()
    wait_until(lambda: len(publisher.commands) == 2)
    assert publisher.commands[1] == {"command": "start", "user": "M. Rossi"}


def test_acknowledging_tells_the_engine_which(
    window: MainWindow, publisher: ScreenPublisher, wait_until: WaitUntil
) -> None:
    window.begin()
    alarms = (make_alarm(key="yield"), make_alarm(key="disk", priority="low"))
    until_said(window, publisher, make_status(alarms=alarms), wait_until)
    window.alarm_strip._button.click()
    window.show_page("alarms")
    window.alarms_page._buttons[1].click()
    wait_until(lambda: len(publisher.commands) == 2)
    assert [command["key"] for command in publisher.commands] == ["yield", "disk"]


def test_a_command_that_fails_cannot_be_overlooked(
    window: MainWindow, port: int, wait_until: WaitUntil
) -> None:
    window.begin()
    with ScreenPublisher(port, refuse="the line is FAULT") as publisher:
        until_said(window, publisher, make_status(state=EngineState.PAUSED), wait_until)
        window.footer.line.click()
        wait_until(lambda: "start not done: the line is FAULT" in window.alarm_strip.accessibleDescription())
        assert window.footer.alarms.text() == "Alarms (1)"
        before = len(publisher.commands)
        window.alarm_strip._button.click()
        assert "no active alarms" in window.alarm_strip.accessibleDescription()
        assert len(publisher.commands) == before  # the screen's own alarm is not the engine's business


def test_no_button_is_dead(window: MainWindow) -> None:
    show_pass(window)
    for button, page in (
        (window.footer.review, window.review_page),
        (window.footer.alarms, window.alarms_page),
        (window.footer.report, window.report_page),
        (window.footer.engineer, window.engineer_page),
        (window.footer.line, window.pause_page),
    ):
        button.click()
        assert page.isVisible()
        assert not window.live.isVisible()
        page._back.click()
        assert window.live.isVisible()
        assert not page.isVisible()
    zoom = window.live.zoom
    window.live._tools[1].click()
    assert window.live.zoom > zoom
    window.live._tools[0].click()
    assert window.live.zoom == zoom


def test_the_record_fills_the_strip_at_start_and_the_review(
    window: MainWindow, tmp_path: Path, wait_until: WaitUntil
) -> None:
    record_parts(tmp_path, [Verdict.REJECT, Verdict.PASS, Verdict.RECHECK])
    window.begin()
    cards = window.rejects.cards
    wait_until(lambda: cards[1].part is not None and cards[1].part.picture is not None)
    assert [card.part.part_seq for card in cards if card.part] == [2, 0]
    window.footer.review.click()
    wait_until(lambda: window.review_page.view.picture is not None)
    assert "2 rejects; chosen: part 2" in window.review_page.accessibleDescription()
    window.review_page.cards[1].click()
    wait_until(
        lambda: window.review_page.view.picture is not None and window.review_page.view.picture.part_seq == 0
    )


def test_a_live_reject_without_preview_gets_its_picture_from_the_record(
    window: MainWindow, tmp_path: Path, wait_until: WaitUntil
) -> None:
    record_parts(tmp_path, [Verdict.REJECT])
    window._history.start()
    deliver(window, make_status(), make_verdict(0, Verdict.REJECT, uid="part-0"))
    card = window.rejects.cards[0]
    assert card.part is not None
    assert card.part.picture is None
    card.click()
    wait_until(lambda: card.part is not None and card.part.picture is not None)


def test_no_record_is_told_in_the_review(window: MainWindow, wait_until: WaitUntil) -> None:
    window.begin()
    window.footer.review.click()
    wait_until(lambda: "station.db" in window.review_page.accessibleDescription())


def test_review_pages_through_all_rejects(window: MainWindow) -> None:
    window.show_page("review")
    page = window.review_page
    parts = [recorded(seq) for seq in range(20, 0, -1)]
    page.show_parts(parts)
    seen: list[int] = []
    while True:
        seen += [card.part.part_seq for card in page.cards if card.isVisible() and card.part]
        if not page._older.isVisible():
            break
        page._older.click()
    assert seen == [part.part_seq for part in parts]


def test_closing_joins_every_thread(app: QApplication, port: int, tmp_path: Path) -> None:
    history = History(tmp_path / "station.db", tmp_path / "images")
    window = MainWindow("S", tmp_path / "config.yaml", Feed(HOST, port), Commands(HOST, port), history)
    window.show()
    window.begin()
    window.close()
    assert not {"feed", "commands", "history"} & {thread.name for thread in threading.enumerate()}
    assert not window.isVisible()
