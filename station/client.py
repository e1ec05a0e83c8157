"""The screens' side of the engine: what it publishes, and the commands it takes. ZeroMQ, and pydantic for
what comes in.

Three sockets on consecutive ports: previews (latest only), events (every verdict, and the status several
times a second), commands (request and reply). A screen that is slow, hung or dead costs the line nothing.
With keys all three are encrypted, and line and screen know each other (CURVE).
"""

import json
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import zmq

from station.types import Preview, StatusMessage, VerdictMessage
from station.wire import WireError, decode_event, decode_preview

EVENT_QUEUE_LENGTH = 1000
PREVIEW_OFFSET, EVENT_OFFSET, COMMAND_OFFSET = 0, 1, 2
_TRY_AGAIN_MS = 2000  # a screen that is not let in hears nothing, and knocks again


def endpoint(host: str, port: int, offset: int) -> str:
    """The address of one of the three sockets."""
    return f"tcp://{host}:{port + offset}"


@dataclass(frozen=True, slots=True)
class ScreenKeys:
    """What a screen proves itself with, and knows the line by: 32 bytes each."""

    server_public: bytes
    public: bytes
    secret: bytes = field(repr=False)

    def lock(self, socket: "zmq.Socket[bytes]") -> None:
        """Use them on a socket that is not connected yet."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server_public)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.HANDSHAKE_IVL, _TRY_AGAIN_MS)


class LineSubscriber:
    """Receives what the engine publishes. Use one in one thread."""

    def __init__(self, host: str, port: int, keys: ScreenKeys | None = None) -> None:
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
            if keys:
                keys.lock(socket)
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

    def __init__(self, host: str, port: int, timeout_ms: int = 2000, keys: ScreenKeys | None = None) -> None:
        self._address = endpoint(host, port, COMMAND_OFFSET)
        self._timeout_ms = timeout_ms
        self._keys = keys
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
            if self._keys:
                self._keys.lock(socket)
            socket.connect(self._address)
            socket.send(json.dumps({"command": command, **arguments}).encode())
            if not socket.poll(self._timeout_ms):
                raise CommandError(
                    f"no answer to {command!r} from {self._address} within {self._timeout_ms} ms; does the "
                    "line run, and with this configuration?"
                )
            data = socket.recv()
        finally:
            socket.close()
        try:
            reply: dict[str, Any] = json.loads(data)
            done, error = reply.get("ok"), str(reply.get("error", "refused"))
        except (ValueError, AttributeError, RecursionError) as problem:
            raise CommandError(f"{self._address} does not answer like a station") from problem
        if not done:
            raise CommandError(error)
        return reply

    def close(self) -> None:
        """Let go of the network."""
        self._context.destroy(linger=0)
