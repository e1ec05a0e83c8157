"""The screen as the process that operators start."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtGui import QImage
from screen_publisher import ScreenPublisher, make_preview, make_status, make_verdict

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60


@pytest.fixture
def start(config: Path) -> Callable[..., "subprocess.Popen[str]"]:
    def start_screen(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-W", "error", "-m", "ui", "--config", str(config), *arguments]
        environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)

    return start_screen


def wait_for_its_sockets(publisher: ScreenPublisher) -> threading.Event:
    """Publish a running line from a thread until the returned event is set."""
    stop = threading.Event()

    def publish() -> None:
        while not stop.wait(0.1):
            publisher.send(make_status())
            publisher.send(make_verdict(5))
            publisher.send(make_preview(5))

    threading.Thread(target=publish, name="screen-test-line").start()
    return stop


@pytest.mark.slow
def test_screenshots_on_signal_then_exit(
    start: Callable[..., "subprocess.Popen[str]"], publisher: ScreenPublisher, tmp_path: Path
) -> None:
    stop = wait_for_its_sockets(publisher)
    folder = tmp_path / "pictures"
    screen = start("--screenshot-dir", str(folder), "--exit-after-screenshots", "--geometry", "1366x768")
    try:
        assert publisher.previews_wanted.wait(START_TIMEOUT_S), "the screen never subscribed"
        screen.send_signal(signal.SIGUSR1)
        assert screen.stdout is not None
        assert select.select([screen.stdout], [], [], START_TIMEOUT_S)[0], "no answer to SIGUSR1"
        line = screen.stdout.readline()
        paths = [Path(path) for path in json.loads(line)["screenshots"]]
        assert screen.wait(START_TIMEOUT_S) == 0
    finally:
        stop.set()
        screen.kill()
        screen.communicate()
    assert [path.name for path in paths] == ["screen-1920x1080.png", "screen-1280x800.png"]
    for path, size in zip(paths, ((1920, 1080), (1280, 800)), strict=True):
        image = QImage(str(path))
        assert (image.width(), image.height()) == size


@pytest.mark.slow
def test_sigterm_ends_it_at_once_and_cleanly(
    start: Callable[..., "subprocess.Popen[str]"], publisher: ScreenPublisher
) -> None:
    screen = start()
    try:
        assert publisher.previews_wanted.wait(START_TIMEOUT_S), "the screen never subscribed"
        screen.send_signal(signal.SIGTERM)
        output, problems = screen.communicate(timeout=START_TIMEOUT_S)
    finally:
        screen.kill()
        screen.communicate()
    assert (screen.returncode, output, problems) == (0, "", "")


@pytest.mark.slow
def test_a_wrong_configuration_is_one_clear_line(
    start: Callable[..., "subprocess.Popen[str]"], config: Path
) -> None:
    config.write_text(config.read_text().replace("publishing:", "publishing:\n  colour: red"))
    screen = start()
    _, problems = screen.communicate(timeout=START_TIMEOUT_S)
    assert screen.returncode == 2
    (line,) = problems.splitlines()
    assert "colour" in line
    assert str(config) in line


@pytest.mark.slow
def test_a_nonsense_geometry_is_refused(start: Callable[..., "subprocess.Popen[str]"]) -> None:
    screen = start("--geometry", "10x10")
    _, problems = screen.communicate(timeout=START_TIMEOUT_S)
    assert screen.returncode == 2
    assert "10x10" in problems
