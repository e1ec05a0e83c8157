import os

os.environ["QT_QPA_PLATFORM"] = "offscreen"  # before Qt is imported anywhere

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication
from screen_publisher import HOST, ScreenPublisher

from tests.station.scripted_line import free_port
from ui import theme
from ui.commands import Commands
from ui.feed import Feed
from ui.history import History
from ui.main_window import MainWindow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def app() -> QApplication:
    application = QApplication.instance() or QApplication(["test"])
    assert isinstance(application, QApplication)
    theme.apply(application)
    return application


@pytest.fixture
def wait_until(app: QApplication) -> Callable[[Callable[[], bool]], None]:
    """Runs the event loop until a condition holds; generous, since the machine is shared."""

    def wait(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        give_up_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < give_up_s, "the condition never came true"
            app.processEvents()
            time.sleep(0.005)

    return wait


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def publisher(port: int) -> Iterator[ScreenPublisher]:
    with ScreenPublisher(port) as running:
        yield running


@pytest.fixture
def window(app: QApplication, port: int, tmp_path: Path) -> Iterator[MainWindow]:
    """A shown window of 1280 x 800 whose threads are not started; tests that need them call `begin`."""
    history = History(tmp_path / "station.db", tmp_path / "images")
    config = tmp_path / "config.yaml"
    shown = MainWindow("Station 3", config, Feed(HOST, port), Commands(HOST, port), history)
    shown.resize(1280, 800)
    shown.show()
    yield shown
    shown.close()
    shown.deleteLater()
    app.processEvents()


@pytest.fixture
def config(tmp_path: Path, port: int) -> Path:
    """The shipped configuration with its own port and data folder."""
    lines = (ROOT / "config.yaml").read_text().splitlines()
    own = {"port:": f"  port: {port}", "host:": f"  host: {HOST}", "data_dir:": "  data_dir: data"}
    text = "\n".join(
        next((new for key, new in own.items() if line.strip().startswith(key)), line) for line in lines
    )
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path
