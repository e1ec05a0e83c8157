"""A line that is started again whenever it ends, as systemd does it (`docs/systemd`)."""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.line_process import LineProcess
from benchmarks.vital_signs import VitalSigns, children

RESTART_S = 2.0  # RestartSec
_STOP_S = 120.0  # TimeoutStopSec
_SAMPLE_S = 5.0


class End(NamedTuple):
    """How one life of the engine ended: what was asked for (empty = nobody did), and its exit status."""

    asked: str
    status: int
    told: list[list[str]]


class SupervisedLine:
    """One engine after another; `watch` must be called several times a second."""

    def __init__(self, config: Callable[[int], Path], told: Path, options: Sequence[str]) -> None:
        """Start the first one.

        Args:
            config: the file for the engine that has so many lives before it.
            told: see `LineProcess`.
            options: likewise.
        """
        self._config = config
        self._told = told
        self._options = options
        self.ends: list[End] = []
        self.vital_signs = VitalSigns()
        self._asked = ""
        self._asked_s = self._start_at_s = self._sample_at_s = 0.0
        self.line: LineProcess | None = None
        self._start()

    def _start(self) -> None:
        config = self._config(len(self.ends))
        self.camera = config.stem
        self.line = LineProcess(config, self._told, self._options)

    @property
    def started(self) -> bool:
        """Whether an engine is there and the first part may come to it."""
        return self.line is not None and self.line.worker() is not None

    def worker(self) -> int | None:
        """The process id of the worker that is there now; None while there is none."""
        return next(iter(children(self.line.process.pid)), None) if self.line else None

    def watch(self) -> None:
        """Collect an engine that has ended, start the next, look at memory."""
        now_s = time.monotonic()
        if self.line is None:
            if now_s >= self._start_at_s:
                self._start()
            return
        if self._asked and now_s - self._asked_s > _STOP_S:
            self._asked = f"{self._asked}, not done within {_STOP_S:g} s"
            self.line.process.kill()
        status = self.line.process.poll()
        if status is not None:
            self.ends.append(End(self._asked, status, self.line.told()))
            self.line.close()
            self.line, self._asked, self._start_at_s = None, "", now_s + RESTART_S
        elif now_s >= self._sample_at_s and not self._asked:
            self._sample_at_s = now_s + _SAMPLE_S
            self.vital_signs.sample(f"engine, {self.camera}", self.line.process.pid)
            if (worker := self.worker()) is not None:
                self.vital_signs.sample(f"worker, {self.camera}", worker)

    def send(self, number: signal.Signals) -> bool:
        """Signal the engine; False when there is none, or it was asked to end already."""
        if self.line is None or self._asked:
            return False
        self._asked, self._asked_s = number.name, time.monotonic()
        self.line.process.send_signal(number)
        return True

    def stop(self) -> None:
        """The last end, in order."""
        while self.line is None:
            time.sleep(0.05)
            self.watch()
        while self.line is not None and not self.started and self.line.process.poll() is None:
            time.sleep(0.05)
        self.send(signal.SIGTERM)
        while self.line is not None:
            time.sleep(0.05)
            self.watch()
