"""The supervision stage: looks whether every stage gets somewhere, and tells systemd.

The watchdog is fed by the stages' own progress: as soon as one hangs it is fed no more, and systemd starts
the station again. While the line starts or stops, systemd's own time limits watch instead
(`TimeoutStartSec`, `TimeoutStopSec`); a start that gets somewhere is given more time, as a record may have to
be brought back first.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from station.sd_notify import Notifier
from station.stage import LONGEST_WAIT_S, Stage

log = logging.getLogger(__name__)

_MORE_TIME_S = 60


class Report(NamedTuple):
    """The line as supervision sees it: whether it is stopping, its state in words, and which stages hang."""

    stopping: bool
    text: str
    hanging: tuple[Stage, ...]


class SupervisionStage(Stage):
    """One thread beside the line."""

    def __init__(
        self,
        *,
        report: Callable[[], Report],
        on_hanging: Callable[[tuple[Stage, ...]], None],
        on_failure: Callable[[Stage], None],
        notifier: Notifier | None = None,
    ) -> None:
        """Set up; `start()` begins to look, `ready()` to feed on condition.

        Args:
            report: says how the line is; must not block.
            on_hanging: told which stages hang, when that changes; empty = none any more.
            on_failure: told when this stage dies.
            notifier: instead of the one that the environment asks for.
        """
        super().__init__("supervision", on_failure)
        self._report = report
        self._on_hanging = on_hanging
        self._notifier = notifier or Notifier()
        half_s = self._notifier.watchdog_s / 2
        self._look_s = min(half_s, LONGEST_WAIT_S) if half_s else LONGEST_WAIT_S
        self._feed_s = half_s
        self._next_feed_s = 0.0
        self._said = ""
        self._hanging: tuple[Stage, ...] = ()
        self._ready = False
        self._wake = threading.Event()
        self._ended = False

    def ready(self) -> None:
        """The line has started: from now on every stage must get somewhere."""
        self._ready = True
        self._wake.set()

    def stop(self) -> None:
        """Tell the last state, and end."""
        self._ended = True
        self._wake.set()

    def work(self) -> None:
        """Until stopped: look, tell, feed."""
        told_ready = told_stopping = False
        while not self._ended:
            self.beat()
            report = self._report()
            if self._ready and not told_ready:
                told_ready = self._notifier.tell("READY=1")
            if report.stopping and not told_stopping:
                told_stopping = self._notifier.tell("STOPPING=1")
            self._look(report, watched=self._ready and not report.stopping)
            if not self._ready and not report.stopping and not report.hanging:
                self._notifier.tell(f"EXTEND_TIMEOUT_USEC={_MORE_TIME_S * 10**6}")
            self._wake.wait(self._look_s)
            self._wake.clear()
        if not told_stopping:
            self._notifier.tell("STOPPING=1")
        self._tell(self._report().text)

    def _look(self, report: Report, watched: bool) -> None:
        hanging = report.hanging if watched else ()
        names = ", ".join(stage.name for stage in hanging)
        if hanging != self._hanging:
            self._hanging = hanging
            if hanging:
                log.error("hanging: %s", names)
            self._on_hanging(hanging)
        self._tell(f"{names} hanging; {report.text}" if hanging else report.text)
        now_s = time.monotonic()
        fed = not any(stage.vital for stage in hanging)  # no part waits for the others
        if self._feed_s and fed and now_s >= self._next_feed_s:
            self._notifier.tell("WATCHDOG=1")
            self._next_feed_s = now_s + self._feed_s

    def _tell(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._notifier.tell(f"STATUS={text}")
