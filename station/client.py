"""The screens' side of the engine: what it publishes, and the commands it takes. Standard library and ZeroMQ
only.

Three sockets on consecutive ports: previews (latest only), events (every verdict, and the status several
times a second), commands (request and reply). A screen that is slow, hung or dead costs the line nothing.
"""

import json
from types import TracebackType
from typing import Any, Self

import zmq

from station.types import Preview, StatusMessage, VerdictMessage
from station.wire import WireError, decode_event, decode_preview

EVENT_QUEUE_LENGTH = 1000
PREVIEW_OFFSET, EVENT_OFFSET, COMMAND_OFFSET = 0, 1, 2


def endpoint(host: str, port: int, offset: int) -> str:
    """The address of one of the three sockets."""
    return f"tcp://{host}:{port + offset}"


class LineSubscriber:
    """Receives what the engine publishes. Use one in one thread."""

    def __init__(self, host: str, port: int) -> None:
        self._context = zmq.Context()
        self._preview = self._context.socket(zmq.SUB)
        self._preview.setsockopt(
            zmq.CONFLATE, 1
        )  # latest only: a slow screen shows now, not five seconds ago
        self._events = self._context.socket(zmq.SUB)
        self._events.setsockopt(zmq.RCVHWM, EVENT_QUEUE_LENGTH)
        self._poller = zmq.Poller()
        for socket, offset in ((self._preview, PREVIEW_OFFSET), (self._events, EVENT_OFFSET)):
            socket.setsockopt(zmq.SUBSCRIBE, b"")
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(endpoint(host, port, offset))  # ZeroMQ reconnects by itself
            self._poller.register(socket, zmq.POLLIN)

    def receive(self, timeout_ms: int) -> list[VerdictMessage | StatusMessage | Preview]:
        """All that has arrived, oldest first within a socket; empty when nothing came within `timeout_ms`.

        Damaged messages are dropped: the next status repeats everything that counts.
        """
        messages: list[VerdictMessage | StatusMessage | Preview] = []
        for socket, _ in self._poller.poll(timeout_ms):
            while True:
                try:
                    data = socket.recv(zmq.NOBLOCK)
                    messages.append(decode_preview(data) if socket is self._preview else decode_event(data))
                except zmq.Again:
                    break
                except WireError:
                    continue
        return messages

    def close(self) -> None:
        """Close both sockets."""
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CommandError(Exception):
    """The engine did not answer, or refused."""


class CommandClient:
    """Sends commands: `start`, `pause`, `acknowledge`, `model`, `shutdown`. Use one in one thread."""

    def __init__(self, host: str, port: int, timeout_ms: int = 2000) -> None:
        self._address = endpoint(host, port, COMMAND_OFFSET)
        self._timeout_ms = timeout_ms
        self._context = zmq.Context()

    def send(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send one command and wait for its reply, at most `timeout_ms`.

        `start()`; `pause(reason="...")`; `acknowledge(key="...")`; `shutdown()`; `model(bundle="/...",
        trusted_keys="/...")`, see `station.model_change`. Every command takes `user`.

        Raises:
            CommandError: no answer in time, or the engine refused; the message says why.
        """
        socket = self._context.socket(
            zmq.REQ
        )  # a fresh one each time: a REQ without its reply is stuck for ever
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.connect(self._address)
            socket.send(json.dumps({"command": command, **arguments}).encode())
            if not socket.poll(self._timeout_ms):
                raise CommandError(
                    f"no answer to {command!r} from {self._address} within {self._timeout_ms} ms"
                )
            reply: dict[str, Any] = json.loads(socket.recv())
        finally:
            socket.close()
        if not reply.get("ok"):
            raise CommandError(str(reply.get("error", "refused")))
        return reply

    def close(self) -> None:
        """Let go of the network."""
        self._context.destroy(linger=0)
