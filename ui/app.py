"""The screen as a process: arguments, signals, screenshots."""

import argparse
import json
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PySide6.QtCore import QObject, QSocketNotifier, Qt, Signal
from PySide6.QtWidgets import QApplication

from station.config import StationConfig, load_config
from station.screen_address import ScreenAddress, screen_address
from station.wire_keys import KeysError
from station.yaml_source import ConfigError
from ui import theme
from ui.commands import Commands
from ui.feed import Feed
from ui.history import History
from ui.main_window import MainWindow

SCREENSHOT_SIZES = ((1920, 1080), (1280, 800))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the screen until it is closed or told to end; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        config = load_config(options.config)
        address = screen_address(config, options.connect, options.keys)
    except (ConfigError, KeysError) as error:
        print(f"station ui: {error}", file=sys.stderr)
        return 2
    app = QApplication.instance() or QApplication(["station-ui"])
    assert isinstance(app, QApplication)
    theme.apply(app)
    window = create_window(config, options.config.resolve(), address)
    width, height = options.geometry
    window.resize(width, height)
    with _signals() as signals:
        signals.ended.connect(window.close)
        signals.screenshots_wanted.connect(
            lambda: _photograph(window, options.screenshot_dir, options.exit_after_screenshots)
        )
        if options.kiosk:
            window.setWindowFlag(Qt.WindowType.FramelessWindowHint)
            window.showFullScreen()
        else:
            window.show()
        window.begin()
        return app.exec()


def create_window(config: StationConfig, config_path: Path, address: ScreenAddress) -> MainWindow:
    """The window with its threads, not yet started."""
    host, port, keys = address
    return MainWindow(
        config.station.name,
        config_path,
        Feed(host, port, keys),
        Commands(host, port, keys),
        History(config.database_path, config.images_dir),
    )


def save_screenshots(window: MainWindow, folder: Path) -> list[Path]:
    """Draw the window at each of `SCREENSHOT_SIZES` into `folder`, and give it its size back.

    Raises:
        OSError: a file could not be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = window.size()
    paths = []
    for width, height in SCREENSHOT_SIZES:
        window.resize(width, height)
        path = folder / f"screen-{width}x{height}.png"
        if not window.grab().save(str(path)):
            raise OSError(
                f"{path}: the screenshot could not be written; check the folder's permissions and the disk"
            )
        paths.append(path)
    window.resize(before)
    return paths


def _photograph(window: MainWindow, folder: Path | None, then_exit: bool) -> None:
    if folder is None:
        print("station ui: no --screenshot-dir was given, so there are no screenshots", file=sys.stderr)
        return
    try:
        paths = save_screenshots(window, folder)
    except OSError as error:
        print(f"station ui: {error}", file=sys.stderr)
        return
    print(json.dumps({"screenshots": [str(path) for path in paths]}), flush=True)
    if then_exit:
        window.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="station ui", description="The operator's screen.")
    parser.add_argument(
        "--config", type=Path, default=Path("config.yaml"), help="the station's configuration"
    )
    parser.add_argument(
        "--geometry", type=_geometry, default=(1280, 800), metavar="WxH", help="window size in pixels"
    )
    parser.add_argument("--connect", metavar="HOST[:PORT]", help="the line, instead of the configured one")
    parser.add_argument("--keys", type=Path, metavar="FOLDER", help="this screen's keys")
    parser.add_argument("--kiosk", action="store_true", help="full screen, without a frame")
    parser.add_argument(
        "--screenshot-dir", type=Path, help="on SIGUSR1 the screen draws itself into this folder"
    )
    parser.add_argument("--exit-after-screenshots", action="store_true", help="end after the first SIGUSR1")
    return parser


def _geometry(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (
        width.isdigit() and height.isdigit() and 960 <= int(width) <= 7680 and 540 <= int(height) <= 4320
    ):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT from 960x540 to 7680x4320 (got {text!r})")
    return int(width), int(height)


class _Signals(QObject):
    ended = Signal()
    screenshots_wanted = Signal()


@contextmanager
def _signals() -> Iterator[_Signals]:
    """Unix signals as Qt signals. Python runs its handlers between bytecodes, of which a waiting Qt has none:
    the wake-up descriptor gets the signal's number at once, and a notifier reads it in the event loop.
    """
    signals = _Signals()
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    notifier = QSocketNotifier(reader.fileno(), QSocketNotifier.Type.Read)

    def read() -> None:
        for number in reader.recv(64):
            if number == signal.SIGUSR1:
                signals.screenshots_wanted.emit()
            elif number in (signal.SIGTERM, signal.SIGINT):
                signals.ended.emit()

    notifier.activated.connect(read)
    handled = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, lambda _number, _frame: None) for number in handled}
    previous_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(previous_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        notifier.setEnabled(False)
        reader.close()
        writer.close()
