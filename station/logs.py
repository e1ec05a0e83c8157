"""The log as files: one JSON object a line, rotated. What people read on the terminal stays text.

Lines are made in the thread that logs and written by another: no stage ever waits for the disk here.

    {"time": "2026-11-24T12:00:00.123+00:00", "level": "ERROR", "logger", "thread", "pid", "message"}
"""

import argparse
import contextlib
import json
import logging
import os
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path

TERMINAL_FORMAT = "%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"

_MOST_WAITING = 10_000  # lines; a disk that stands still must not eat the memory


@dataclass(frozen=True, slots=True)
class LogFile:
    """Where a process logs to.

    Attributes:
        path: of the newest file; older ones have .1, .2, ... behind it.
        level: DEBUG, INFO, WARNING or ERROR; what is below is not written.
        max_bytes: a file that would grow beyond is put aside.
        kept: how many of those stay.
    """

    path: Path
    level: str
    max_bytes: int
    kept: int

    def arguments(self) -> list[str]:
        """As command line arguments, for a process that has called `log_arguments`."""
        return [
            *("--log-file", str(self.path), "--log-level", self.level),
            *("--log-max-bytes", str(self.max_bytes), "--log-kept", str(self.kept)),
        ]


def log_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments by which one process tells another where to log."""
    parser.add_argument("--log-file", type=Path)
    parser.add_argument("--log-level", default="INFO")
    parser.add_argument("--log-max-bytes", type=int, default=10_000_000)
    parser.add_argument("--log-kept", type=int, default=5)


def log_file(arguments: argparse.Namespace) -> LogFile | None:
    """What the arguments say; None when they name no file."""
    if arguments.log_file is None:
        return None
    return LogFile(arguments.log_file, arguments.log_level, arguments.log_max_bytes, arguments.log_kept)


@contextmanager
def logging_to(file: LogFile | None) -> Iterator[None]:
    """Log into the file as well, while the block runs. A file that cannot be written costs only the log."""
    if file is None:
        yield
        return
    with contextlib.suppress(OSError):  # said by the first line that cannot be written
        file.path.parent.mkdir(parents=True, exist_ok=True)
    root, level = logging.getLogger(), logging.getLogger().level
    for shown in root.handlers:  # the terminal shows what it has always shown
        shown.setLevel(shown.level or level)
    waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    entrance = _Entrance(waiting)
    entrance.setLevel(file.level)
    entrance.setFormatter(JsonFormatter())
    target = _RotatedFile(
        file.path, maxBytes=file.max_bytes, backupCount=file.kept, encoding="utf-8", delay=True
    )
    listener = QueueListener(waiting, target)
    listener.start()
    root.addHandler(entrance)
    root.setLevel(min(level, entrance.level))
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(entrance)
        listener.stop()
        entrance.close()
        target.close()


class JsonFormatter(logging.Formatter):
    """A record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"time": time, "level": record.levelname, "logger": record.name}
        line |= {"thread": record.threadName or "", "pid": os.getpid(), "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _Entrance(QueueHandler):
    """Takes lines from any thread; lets go of them when too many wait already."""

    def __init__(self, waiting: queue.SimpleQueue[logging.LogRecord]) -> None:
        super().__init__(waiting)
        self._waiting = waiting

    def enqueue(self, record: logging.LogRecord) -> None:
        if self._waiting.qsize() < _MOST_WAITING:
            self._waiting.put(record)


class _RotatedFile(RotatingFileHandler):
    """Says once that it cannot write, instead of with every line."""

    _has_said = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not self._has_said:
            print(f"log: {self.baseFilename} cannot be written: {error}", file=sys.stderr)
        self._has_said = True
