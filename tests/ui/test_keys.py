"""A screen with its keys, as `station ui --connect HOST:PORT --keys FOLDER` makes it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication

from station.config import load_config
from station.screen_address import screen_address
from station.wire_keys import make_line_keys, make_screen_keys
from tests.station.published_line import PublishedLine
from ui.app import create_window, main

WaitUntil = Callable[[Callable[[], bool]], None]
ROOT = Path(__file__).resolve().parents[2]


def test_a_screen_with_a_key_sees_the_line_and_commands_it(
    app: QApplication, port: int, tmp_path: Path, wait_until: WaitUntil
) -> None:
    make_line_keys(tmp_path / "keys")
    carried = make_screen_keys(tmp_path / "keys", "panel")
    config = load_config(ROOT / "config.yaml")
    with PublishedLine(port=port, keys=tmp_path / "keys") as line:
        address = screen_address(config, f"127.0.0.1:{port}", carried)
        window = create_window(config, ROOT / "config.yaml", address)
        try:
            window.begin()
            wait_until(lambda: window._feed.heard)
            window._commands.send("start")
            wait_until(lambda: [name for name, _ in line.commands] == ["start"])
        finally:
            window.close()


def test_a_screen_that_lacks_keys_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(ROOT / "config.yaml"), "--connect", "192.168.0.30"]) == 2
    assert "add --keys FOLDER" in capsys.readouterr().err
