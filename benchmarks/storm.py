"""A storm of faults over a running line: what happens, when, and when it is over. Seeded.

Each fault is real: signals to real processes, a real lock, a real full disk, a real server that hangs. What
lasts is healed after some seconds; others may come meanwhile.
"""

import heapq
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks.line_process import ROOT
from benchmarks.supervised_line import SupervisedLine
from drivers.plc_simulator import PlcSimulator
from station.client import COMMAND_OFFSET, CommandClient, CommandError
from station.config import StationConfig

Heal = Callable[[], None]
_SUBSCRIBER = (
    "import sys; from station.client import LineSubscriber\n"
    "with LineSubscriber(sys.argv[1], int(sys.argv[2])) as line:\n    while True: line.receive(100)"
)
ENGINE_FAULTS = ("engine terminated", "engine killed")
WORKER_FAULTS = ("worker killed", "worker stopped")
_ENGINE_SHARE = 0.2  # of all faults, while the engine is not spared


class NotNow(Exception):
    """This fault cannot happen at this moment."""


class Fault(NamedTuple):
    """One that happened; Unix nanoseconds."""

    kind: str
    begun_ns: int
    healed_ns: int


class Storm:
    """Injects one fault after another; `blow` is called several times a second."""

    def __init__(
        self,
        line: SupervisedLine,
        plc: PlcSimulator,
        config: StationConfig,
        config_path: Path,
        disk: Path | None,
        seed: int,
        every_s: float,
    ) -> None:
        """Calm at first.

        Args:
            line: gets the faults.
            plc: its PLC.
            config: its configuration, where data folder and ports stand.
            config_path: the file of it, for screens.
            disk: a small disk that may be filled, which holds the data folder; None = there is none.
            seed: of everything that is drawn.
            every_s: mean time between two faults.
        """
        self._line = line
        self._plc = plc
        self._config = config
        self._config_path = config_path
        self._disk = disk
        self._chance = random.Random(seed)
        self._every_s = every_s
        self._next_s = time.monotonic() + 5.0
        self._heals: list[tuple[float, int, str, Heal, int]] = []
        self._bag: list[str] = []
        self._screens: list[subprocess.Popen[bytes]] = []
        self.faults: list[Fault] = []
        self.spared: tuple[str, ...] = ENGINE_FAULTS
        """Kinds that do not come now."""
        self._kinds: dict[str, tuple[Callable[[], Heal | None], float]] = {
            "buffer failed": (lambda: self._camera("fail"), 0),
            "trigger lost": (lambda: self._camera("lose"), 0),
            "picture late": (lambda: self._camera("late"), 0),
            "camera removed": (lambda: self._camera("remove"), 0),
            "triggers too fast": (self._too_fast, 0.5),
            "worker killed": (lambda: self._worker(signal.SIGKILL), 0),
            "worker stopped": (lambda: self._worker(signal.SIGSTOP), 0),
            "worker error": (lambda: self._worker(signal.SIGUSR1), 0),
            "score not a number": (lambda: self._worker(signal.SIGUSR2), 0),
            "PLC in STOP": (self._plc_stops, 4),
            "PLC hangs": (self._plc_hangs, 4),
            "PLC tells garbage": (self._plc_garbage, 3),
            "PLC restarted": (self._plc_restarts, 1),
            "acknowledge late": (self._acknowledge_late, 2),
            "database locked": (self._lock_database, 6),
            "disk full": (self._fill_disk, 8),
            "screen killed": (self._screen, 5),
            "screen hangs": (self._screen_hangs, 5),
            "garbage as commands": (self._garbage_commands, 0),
            "line paused": (self._pause, 2),
            "engine terminated": (lambda: self._engine(signal.SIGTERM), 0),
            "engine killed": (lambda: self._engine(signal.SIGKILL), 0),
        }

    def blow(self) -> None:
        """Heal what has lasted long enough, and inject the next fault when it is time."""
        now_s = time.monotonic()
        while self._heals and self._heals[0][0] <= now_s:
            self._heal(heapq.heappop(self._heals))
        if now_s < self._next_s or not self._line.started:
            return
        self._next_s = now_s + self._chance.uniform(0.4, 1.6) * self._every_s
        kind = self._draw()
        inject, lasts_s = self._kinds[kind]
        begun_ns = time.time_ns()
        try:
            heal = inject()
        except (NotNow, OSError, CommandError, sqlite3.OperationalError):
            self._next_s = now_s + 0.2  # another one, then
            return
        if heal is None:
            self.faults.append(Fault(kind, begun_ns, time.time_ns()))
        else:
            over_s = now_s + self._chance.uniform(0.3, 1.0) * lasts_s
            heapq.heappush(self._heals, (over_s, begun_ns, kind, heal, begun_ns))

    def calm(self) -> None:
        """Everything is healed, every screen gone."""
        while self._heals:
            self._heal(heapq.heappop(self._heals))
        for screen in self._screens:
            _kill(screen)

    def _heal(self, entry: tuple[float, int, str, Heal, int]) -> None:
        _, _, kind, heal, begun_ns = entry
        with suppress(OSError, CommandError, sqlite3.Error):
            heal()
        self.faults.append(Fault(kind, begun_ns, time.time_ns()))

    def _draw(self) -> str:
        """Every kind comes as often as every other, in a drawn order; none twice at once."""
        under_way = {entry[2] for entry in self._heals}
        for _ in range(100):
            if not self._bag:
                self._bag = [kind for kind in self._kinds if kind not in ENGINE_FAULTS]
                self._chance.shuffle(self._bag)
            if ENGINE_FAULTS[0] not in self.spared and self._chance.random() < _ENGINE_SHARE:
                return self._chance.choice(ENGINE_FAULTS)
            kind = self._bag.pop()
            if kind not in under_way and kind not in self.spared:
                return kind
        return "buffer failed"

    # --- what happens

    def _camera(self, word: str) -> None:
        if self._line.line is None:
            raise NotNow
        self._line.line.command(word)

    def _worker(self, number: signal.Signals) -> None:
        worker = self._line.worker()
        if worker is None:
            raise NotNow
        os.kill(worker, number)

    def _engine(self, number: signal.Signals) -> None:
        if not self._line.send(number):
            raise NotNow

    def _too_fast(self) -> Heal:
        settings, before_s = self._plc.settings, self._plc.settings.interval_s
        settings.interval_s = 0.01
        return lambda: setattr(settings, "interval_s", before_s)

    def _plc_stops(self) -> Heal:
        self._plc.running = False
        return lambda: setattr(self._plc, "running", True)

    def _plc_hangs(self) -> Heal:
        self._plc.answering = False
        return lambda: setattr(self._plc, "answering", True)

    def _plc_garbage(self) -> Heal:
        self._plc.garbage = [self._chance.randrange(65_536) for _ in range(10)]
        return lambda: setattr(self._plc, "garbage", None)

    def _plc_restarts(self) -> Heal:
        self._plc.stop()
        return self._plc.start

    def _acknowledge_late(self) -> Heal:
        self._plc.settings.acknowledge_s = 0.5
        return lambda: setattr(self._plc.settings, "acknowledge_s", 0.0)

    def _lock_database(self) -> Heal:
        connection = sqlite3.connect(
            f"file:{self._config.database_path}?mode=rw", uri=True, timeout=0.1, isolation_level=None
        )
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            connection.close()
            raise
        return connection.close

    def _fill_disk(self) -> Heal:
        if self._disk is None:
            raise NotNow
        filler = self._disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            for size in (1_000_000, 4096):
                with suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass
        return filler.unlink

    def _screen(self) -> Heal:
        """Now and then the real one; more often just what it does with the network."""
        host, port = self._config.publishing.host, self._config.publishing.port
        command = [sys.executable, "-c", _SUBSCRIBER, host, str(port)]
        if self._chance.random() < 0.25:
            command = [sys.executable, "-m", "ui", "--config", str(self._config_path)]
        environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
        screen = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        self._screens.append(screen)
        return lambda: _kill(screen)

    def _screen_hangs(self) -> Heal:
        heal = self._screen()
        screen = self._screens[-1]
        time.sleep(0.5)
        screen.send_signal(signal.SIGSTOP)
        return heal

    def _garbage_commands(self) -> None:
        host, port = self._config.publishing.host, self._config.publishing.port
        for length in (10, 1000, 100_000):
            with socket.create_connection((host, port + COMMAND_OFFSET), timeout=1) as connection:
                connection.sendall(self._chance.randbytes(length))
        client = CommandClient(host, port, timeout_ms=1000)
        try:
            for word in ("", "drop table", "\ud800", "x" * 10_000):
                with suppress(CommandError, UnicodeError):
                    client.send(word, reason=["nested", {"deep": None}])
        finally:
            client.close()

    def _pause(self) -> Heal:
        self._command("pause")
        return self._start_line

    def _start_line(self) -> None:
        """As an operator does: again until the line says that it runs, or has ended."""
        for _ in range(5):
            try:
                return self._command("start")
            except CommandError as error:
                if "not possible now" in str(error):  # it was started meanwhile
                    return None
        return None

    def _command(self, name: str) -> None:
        client = CommandClient(self._config.publishing.host, self._config.publishing.port, timeout_ms=1000)
        try:
            client.send(name, reason="the storm")
        finally:
            client.close()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
