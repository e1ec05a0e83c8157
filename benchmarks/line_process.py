"""A line in a process of its own, seen from outside: its configuration, its life, what it has told."""

import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from station.config import load_config

ROOT = Path(__file__).resolve().parents[1]
_START_S = 60.0


def free_port() -> int:
    """The first of three free consecutive ports, below those that outgoing connections are given."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with ExitStack() as sockets:
            try:
                for offset in range(3):
                    sockets.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return port


def write_config(path: Path, data_dir: Path, sections: Mapping[str, Any]) -> Path:
    """The shipped configuration as JSON, with another data folder, free ports and changed sections."""
    values = load_config(ROOT / "config.yaml").model_dump(mode="json")
    values["station"]["data_dir"] = str(data_dir)
    values["publishing"]["port"] = free_port()
    values["metrics"]["port"] = 0
    for name, changes in sections.items():
        values[name] = values[name] | changes if isinstance(changes, dict) else changes
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")
    return path


class LineProcess:
    """A running `benchmarks.told_line`."""

    def __init__(self, config: Path, told: Path, options: Sequence[str]) -> None:
        """Start it; what it tells is appended to the file `told`."""
        self._told = told
        self._from = told.stat().st_size if told.exists() else 0
        command = [sys.executable, "-m", "benchmarks.told_line", str(config), *options]
        with told.open("ab") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=output)

    def told(self) -> list[list[str]]:
        """What this process has told so far, in words; a line that a kill cut short is none."""
        with self._told.open("rb") as file:
            file.seek(self._from)
            lines = file.read().decode().split("\n")[:-1]
        return [line.split() for line in lines]

    def worker(self) -> int | None:
        """The first worker's process id; None until the line has started."""
        return next((int(words[1]) for words in self.told() if words[0] == "started"), None)

    def wait_started(self, timeout_s: float = _START_S) -> int:
        """Wait until the first part may come; the worker's process id.

        Raises:
            RuntimeError: it ended, or took too long.
        """
        give_up_s = time.monotonic() + timeout_s
        while (worker := self.worker()) is None:
            if self.process.poll() is not None or time.monotonic() > give_up_s:
                raise RuntimeError(f"the line did not start (exit status {self.process.poll()})")
            time.sleep(0.005)
        return worker

    def command(self, word: str) -> None:
        """Tell its camera something."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()

    def end(self, number: signal.Signals, timeout_s: float = _START_S) -> int:
        """Send a signal and wait for the end; the exit status."""
        self.process.send_signal(number)
        status = self.process.wait(timeout_s)
        self.close()
        return status

    def close(self) -> None:
        """Let go of what tells its camera."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
