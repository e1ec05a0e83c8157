"""Commands to the engine, sent from a thread of their own: the screen never waits for an answer."""

import queue
import threading
from typing import Any

from PySide6.QtCore import QObject, Signal

from station.client import CommandClient, CommandError, ScreenKeys

ANSWER_TIMEOUT_MS = 1500


class Commands(QObject):
    """Sends commands one after the other.

    Signals:
        done: (command) the engine did it.
        failed: (command, why) it refused, or did not answer; nothing is repeated by itself.
    """

    done = Signal(str)
    failed = Signal(str, str)

    def __init__(
        self, host: str, port: int, keys: ScreenKeys | None = None, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._client = CommandClient(host, port, ANSWER_TIMEOUT_MS, keys)
        self._queue: queue.SimpleQueue[tuple[str, dict[str, Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, name="commands")

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def send(self, command: str, **arguments: Any) -> None:
        """Queue one command; see `station.client.CommandClient.send`."""
        self._queue.put((command, arguments))

    def close(self) -> None:
        """Finish the command under way and join the thread: at most `ANSWER_TIMEOUT_MS`."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _send_all(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                command, arguments = item
                try:
                    self._client.send(command, **arguments)
                except CommandError as error:
                    self.failed.emit(command, str(error))
                else:
                    self.done.emit(command)
        finally:
            self._client.close()
