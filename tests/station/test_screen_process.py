"""The screen is a process of its own: the line neither needs it nor notices its end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripted_line import ROOT, free_port

from station.client import CommandClient, LineSubscriber
from station.types import EngineState, StatusMessage


def screens_of(parent: int) -> list[int]:
    """Process ids of the screens that a process has started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if b"\0ui\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_killing_the_screen_leaves_the_line_running_and_its_account_whole(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "config.yaml"
    config.write_text((ROOT / "config.yaml").read_text().replace("port: 17800", f"port: {port}"))
    environment = os.environ | {"DISPLAY": ":offscreen", "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-m", "station.cli", "run", "--config", str(config)]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            kill_screens_of(process, port)
            said = process.communicate(timeout=60)[1]
        finally:
            process.terminate()  # where it still runs: its screen ends with it
    assert process.returncode == 0, said
    assert "0 not inspected + 0 in flight" in said.splitlines()[-1]


def kill_screens_of(process: subprocess.Popen[str], port: int) -> None:
    client = CommandClient("127.0.0.1", port)
    killed: set[int] = set()
    with LineSubscriber("127.0.0.1", port) as line:
        last: StatusMessage | None = None

        def wait_for(parts: int, screens: int) -> None:
            nonlocal last
            give_up_s = time.monotonic() + 60
            while time.monotonic() < give_up_s and process.poll() is None:
                for message in line.receive(100):
                    if isinstance(message, StatusMessage):
                        assert message.ledger.balanced()
                        last = message
                alive = [pid for pid in screens_of(process.pid) if pid not in killed]
                if last and last.ledger.rows >= parts and len(alive) >= screens:
                    return
            raise AssertionError(f"no {parts} parts with {screens} screens; status {process.poll()}, {last}")

        for round_number in (1, 2):
            wait_for(5 * round_number, 1)
            (screen,) = [pid for pid in screens_of(process.pid) if pid not in killed]
            os.kill(screen, signal.SIGKILL)
            killed.add(screen)
        assert last is not None
        wait_for(last.ledger.rows + 5, 1)
        assert last.state is EngineState.RUNNING
        assert last.ledger.not_inspected == 0
    client.send("shutdown")
    client.close()
