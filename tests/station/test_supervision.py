"""systemd's view of a line: ready, watched, stopping; a stage that hangs is fed for no more."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path

import pytest
from line_runs import PASS, wait_until
from scripted_line import ROOT, STAND_IN, ScriptedCamera, line_config

from station.engine import Engine
from station.sd_notify import Notifier

WATCHDOG_S = 0.4
UNITS = sorted((ROOT / "docs" / "systemd").glob("*.service"))


class Systemd:
    """The end of the notify socket that systemd holds."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.heard: list[tuple[float, str]] = []

    def listen(self) -> None:
        while True:
            try:
                message = self.socket.recv(65_536).decode()
            except BlockingIOError:
                return
            self.heard.append((time.monotonic(), message))

    def said(self, start: str) -> list[str]:
        self.listen()
        return [message for _, message in self.heard if message.startswith(start)]


@pytest.fixture(params=["path", "abstract"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Systemd]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@varad-test-{os.getpid()}"
    systemd = Systemd(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", str(round(WATCHDOG_S * 1e6)))
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    yield systemd
    systemd.socket.close()


class HangingCamera(ScriptedCamera):
    """A camera whose driver does not come back while `let_go` is clear."""

    def __init__(self) -> None:
        super().__init__([PASS])
        self.let_go = threading.Event()
        self.let_go.set()

    def trigger(self) -> None:
        self.let_go.wait()
        super().trigger()


def test_a_line_that_runs_feeds_the_watchdog_and_one_that_hangs_does_not(
    systemd: Systemd, tmp_path: Path, no_leaks: None
) -> None:
    camera = HangingCamera()
    engine = Engine(line_config(tmp_path / "data"), cameras=[camera], command=STAND_IN)
    engine.start()
    try:
        wait_until(lambda: systemd.said("READY=1") == ["READY=1"] and len(systemd.said("WATCHDOG=1")) > 5)
        assert systemd.said("EXTEND_TIMEOUT_USEC="), "a start that gets somewhere has time"
        assert any("RUNNING; triggered" in text for text in systemd.said("STATUS="))
        engine.acquisition.patience_s = 0.3
        camera.let_go.clear()
        wait_until(lambda: any("acquisition hanging" in text for text in systemd.said("STATUS=")))
        fed = len(systemd.said("WATCHDOG=1"))
        time.sleep(2 * WATCHDOG_S)
        assert len(systemd.said("WATCHDOG=1")) == fed, "fed, though a stage hangs"
        alarms = {alarm.key: alarm for alarm in engine.health.snapshot().alarms}
        assert alarms["hang"].title == "STATION HANGS: acquisition"
        camera.let_go.set()
        wait_until(lambda: len(systemd.said("WATCHDOG=1")) > fed)
        assert not any(alarm.active for alarm in engine.health.snapshot().alarms if alarm.key == "hang")
    finally:
        camera.let_go.set()
        account = engine.stop("done")
    assert account.balanced()
    assert systemd.said("STOPPING=1") == ["STOPPING=1"]
    last = systemd.said("STATUS=")[-1]
    assert last.startswith("STATUS=STOPPED")
    assert f"triggered {account.triggered} =" in last


def test_every_stage_gets_somewhere_while_there_is_nothing_to_do(tmp_path: Path) -> None:
    config = line_config(tmp_path, trigger={"interval_ms": 3_600_000.0})
    engine = Engine(config, cameras=[ScriptedCamera([PASS])], command=STAND_IN)
    engine.start(run=False)
    stages = engine.stages
    assert len(stages) == 7
    silent_s = 0.0
    until_s = time.monotonic() + 2.5
    while time.monotonic() < until_s:
        silent_s = max(silent_s, *(stage.silent_s for stage in stages))
        time.sleep(0.05)
    engine.stop("done")
    assert silent_s < 2.2


def test_without_systemd_nothing_is_told(tmp_path: Path) -> None:
    assert not Notifier({}).tell("READY=1")
    assert Notifier({"WATCHDOG_USEC": "1000000"}).watchdog_s == 0.0
    other = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert Notifier(other).watchdog_s == 0.0
    assert not Notifier(other).tell("READY=1"), "a socket that is gone"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_units_are_what_systemd_accepts(unit: Path, tmp_path: Path) -> None:
    parser = RawConfigParser(strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read(unit)
    program, command, *_ = parser["Service"]["ExecStart"].split()
    assert (Path(program).name, command) in {("station", "serve"), ("station", "ui")}
    assert parser["Service"]["Restart"] == "always"
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / unit.name  # the program must be there to be accepted
    copy.write_text(unit.read_text().replace(program, sys.executable))
    verify = ["systemd-analyze", "verify", "--man=no", "--generators=no", str(copy)]
    if command == "ui":
        verify.insert(1, "--user")
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    said = subprocess.run(verify, capture_output=True, text=True, check=False, env=environment)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_the_service_feeds_what_systemd_watches() -> None:
    (unit,) = (path for path in UNITS if path.stem == "varad-station")
    lines = unit.read_text().splitlines()
    assert {"Type=notify", "NotifyAccess=main", "KillMode=mixed", "WatchdogSec=30"} <= set(lines)
