import threading
from collections.abc import Callable, Iterator

import pytest
from PySide6.QtWidgets import QApplication
from screen_publisher import HOST, ScreenPublisher

from ui.commands import Commands

WaitUntil = Callable[[Callable[[], bool]], None]


@pytest.fixture
def commands(app: QApplication, port: int) -> Iterator[Commands]:
    commands = Commands(HOST, port)
    commands.start()
    yield commands
    commands.close()


def test_a_command_reaches_the_engine(
    commands: Commands, publisher: ScreenPublisher, wait_until: WaitUntil
) -> None:
    done: list[str] = []
    commands.done.connect(done.append)
    commands.send("pause", reason="jam", user="M. Rossi")
    wait_until(lambda: done == ["pause"])
    assert publisher.commands == [{"command": "pause", "reason": "jam", "user": "M. Rossi"}]


def test_a_refusal_is_told_with_its_reason(commands: Commands, port: int, wait_until: WaitUntil) -> None:
    failed: list[tuple[str, str]] = []
    commands.failed.connect(lambda command, why: failed.append((command, why)))
    with ScreenPublisher(port, refuse="the line is FAULT"):
        commands.send("start")
        wait_until(lambda: bool(failed))
    assert failed == [("start", "the line is FAULT")]


def test_silence_is_told_and_the_next_command_is_sent_all_the_same(
    commands: Commands, port: int, wait_until: WaitUntil
) -> None:
    told: list[str] = []
    commands.failed.connect(lambda command, why: told.append(f"{command}: {why}"))
    commands.done.connect(told.append)
    commands.send("start")
    wait_until(lambda: bool(told))
    assert "no answer" in told[0]
    with ScreenPublisher(port):
        commands.send("start")
        wait_until(lambda: told[1:] == ["start"])


def test_closing_joins_the_thread(app: QApplication, port: int) -> None:
    commands = Commands(HOST, port)
    commands.start()
    commands.close()
    assert "commands" not in {thread.name for thread in threading.enumerate()}
