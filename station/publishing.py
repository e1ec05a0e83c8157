"""The publishing stage: tells the screens, and takes their commands. Owns all ZeroMQ sockets of the engine.

A screen can be slow, hung or absent: previews are latest-only, events are dropped at its own queue's end.
"""

import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
import zmq
from numpy.typing import NDArray

from station.client import COMMAND_OFFSET, EVENT_OFFSET, EVENT_QUEUE_LENGTH, PREVIEW_OFFSET, endpoint
from station.doorkeeper import Doorkeeper
from station.mailbox import Mailbox
from station.sections import PublishingSection
from station.stage import LONGEST_WAIT_S, Stage
from station.types import Inspection, Preview, StatusMessage, VerdictMessage
from station.wire import encode_event, encode_preview
from station.wire_keys import KeysError, read_line_keys

log = logging.getLogger(__name__)

_PENDING_VERDICTS = 1000
_MAX_COMMAND_BYTES = 65_536
_FASTEST_STATUS_S = 0.05  # after a verdict the counts follow at once, up to so often
LIMIT_LEVEL = 128  # of 255 in a preview's map: exactly the reject limit

CommandHandler = Callable[[str, dict[str, Any]], dict[str, Any]]


class PublishError(Exception):
    """The sockets could not be opened."""


class _Sockets(NamedTuple):
    previews: zmq.Socket[Any]
    events: zmq.Socket[Any]
    commands: zmq.Socket[Any]
    doorkeeper: Doorkeeper


class PublishingStage(Stage):
    """One thread between the engine and its screens."""

    def __init__(
        self,
        *,
        config: PublishingSection,
        verdict_message: Callable[[Inspection], VerdictMessage],
        status_message: Callable[[], StatusMessage],
        on_command: CommandHandler,
        on_failure: Callable[[Stage], None],
    ) -> None:
        """Set up; `start()` opens the sockets.

        Args:
            config: addresses and rates.
            verdict_message: what the screens are told of a part.
            status_message: what they are told of the line.
            on_command: carries out a command; its reply has `ok`, and `error` when that is false.
            on_failure: told when this stage dies.
        """
        super().__init__("publishing", on_failure)
        self._config = config
        self._verdict_message = verdict_message
        self._status_message = status_message
        self._on_command = on_command
        self._verdicts: Mailbox[Inspection] = Mailbox(_PENDING_VERDICTS)
        self._latest: Inspection | None = None
        self._frame_times_s: deque[float] = deque(maxlen=20)
        self._stopping = False
        self.opened = threading.Event()
        """Set once the sockets are open, or cannot be."""
        self.open_error: PublishError | None = None

    def put(self, inspection: Inspection) -> None:
        """Take a decided part. Never blocks."""
        self._verdicts.put(
            inspection
        )  # a full mailbox drops it: the record has it, the status repeats the counts

    @property
    def waiting(self) -> int:
        """Parts that the screens have not been told of."""
        return len(self._verdicts)

    def stop(self) -> None:
        """Publish what waits and a last status, then close."""
        self._stopping = True
        self._verdicts.wake()

    def close(self) -> None:
        """Let go of the mailbox, once the thread has ended or if it was never started."""
        self._verdicts.close()

    def work(self) -> None:
        """Until stopped: events as they come, previews and status at their rates, commands at once."""
        context = zmq.Context()
        try:
            try:
                keys = read_line_keys(self._config.keys) if self._config.keys else None
                doorkeeper = Doorkeeper(context, keys)
                sockets = _Sockets(
                    previews=self._bind(context, zmq.PUB, PREVIEW_OFFSET, doorkeeper),
                    events=self._bind(context, zmq.PUB, EVENT_OFFSET, doorkeeper),
                    commands=self._bind(context, zmq.REP, COMMAND_OFFSET, doorkeeper),
                    doorkeeper=doorkeeper,
                )
            except KeysError as error:
                self.open_error = PublishError(str(error))
                return
            except zmq.ZMQError as error:
                first, last = self._config.port, self._config.port + COMMAND_OFFSET
                self.open_error = PublishError(
                    f"ports {first} to {last} on {self._config.host} cannot be used ({error.strerror}); "
                    "stop the other station, or change publishing.port"
                )
                return
            finally:
                self.opened.set()
            self._publish(sockets)
        finally:
            context.destroy(linger=200)

    def _bind(
        self, context: zmq.Context[Any], kind: int, offset: int, doorkeeper: Doorkeeper
    ) -> zmq.Socket[Any]:
        socket: zmq.Socket[Any] = context.socket(kind)
        socket.setsockopt(zmq.SNDHWM, EVENT_QUEUE_LENGTH if offset != PREVIEW_OFFSET else 2)
        socket.setsockopt(zmq.MAXMSGSIZE, _MAX_COMMAND_BYTES)  # of what comes in
        doorkeeper.lock(socket)
        try:
            socket.bind(endpoint(self._config.host, self._config.port, offset))
        except zmq.ZMQError:
            socket.close()
            raise
        return socket

    def _publish(self, sockets: _Sockets) -> None:
        previews, events, commands, doorkeeper = sockets
        poller = zmq.Poller()
        poller.register(self._verdicts.fileno(), zmq.POLLIN)
        poller.register(commands, zmq.POLLIN)
        poller.register(doorkeeper.questions, zmq.POLLIN)
        next_status_s = next_preview_s = last_status_s = 0.0
        while True:
            stopping = self._stopping
            now_s = time.monotonic()
            self.beat()
            due_s = min(next_status_s, now_s + LONGEST_WAIT_S, next_preview_s if self._latest else math.inf)
            ready = dict(poller.poll(0 if stopping else max(0, math.ceil((due_s - now_s) * 1e3))))
            self._verdicts.clear()
            while inspection := self._verdicts.pop():
                events.send(encode_event(self._verdict_message(inspection)))
                next_status_s = min(next_status_s, last_status_s + _FASTEST_STATUS_S)
                if inspection.frame is not None:
                    self._latest = inspection
                    self._frame_times_s.append(inspection.frame.captured_ns / 1e9)
            if doorkeeper.questions in ready:
                doorkeeper.answer()
            if commands in ready:
                commands.send(json.dumps(self._answer(commands.recv_multipart())).encode())
                next_status_s = 0.0  # the screen that asked sees the effect at once
            now_s = time.monotonic()
            if self._latest and (now_s >= next_preview_s or stopping):
                previews.send(encode_preview(self._preview(self._latest)))
                self._latest = None
                next_preview_s = now_s + 1.0 / self._config.preview_hz
            if now_s >= next_status_s or stopping:
                events.send(encode_event(self._status_message()))
                last_status_s, next_status_s = now_s, now_s + 1.0 / self._config.status_hz
            if stopping:
                return

    def _answer(self, parts: list[bytes]) -> dict[str, Any]:
        try:
            (data,) = parts
            arguments = json.loads(data)
            json.dumps(arguments, ensure_ascii=False).encode()  # a lone surrogate is no text for the record
            command = arguments.pop("command")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return {"ok": False, "error": "a command is a JSON object with the key 'command'"}
        return self._on_command(str(command), arguments)

    def _preview(self, inspection: Inspection) -> Preview:
        frame = inspection.frame
        assert frame is not None
        image_rgb = shrink(frame.image_rgb, self._config.preview_px)
        map_u8 = np.zeros((0, 0), np.uint8)
        if inspection.result is not None and inspection.limits is not None:
            map_u8 = map_levels(inspection.result.anomaly_map, inspection.limits.reject)
        return Preview(
            part_seq=frame.trigger.part_seq,
            camera_id=frame.trigger.camera_id,
            verdict=inspection.verdict,
            triggered_unix_ns=frame.trigger.triggered_unix_ns,
            fps=self._fps(),
            width=image_rgb.shape[1],
            height=image_rgb.shape[0],
            image_rgb=image_rgb.tobytes(),
            map_width=map_u8.shape[1],
            map_height=map_u8.shape[0],
            map_u8=map_u8.tobytes(),
        )

    def _fps(self) -> float:
        if len(self._frame_times_s) < 2:
            return 0.0
        span_s = self._frame_times_s[-1] - self._frame_times_s[0]
        return (len(self._frame_times_s) - 1) / span_s if span_s > 0 else 0.0


def shrink(image_rgb: NDArray[np.uint8], longest_px: int) -> NDArray[np.uint8]:
    """The image with its longest side at most `longest_px`: exact halves first, then linear."""
    while max(image_rgb.shape[:2]) >= 2 * longest_px:
        half = (max(1, image_rgb.shape[1] // 2), max(1, image_rgb.shape[0] // 2))
        image_rgb = cv2.resize(image_rgb, half, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    longest = max(image_rgb.shape[:2])
    if longest > longest_px:
        factor = longest_px / longest
        size = (max(1, round(image_rgb.shape[1] * factor)), max(1, round(image_rgb.shape[0] * factor)))
        image_rgb = cv2.resize(image_rgb, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return image_rgb


def map_levels(anomaly_map: NDArray[np.float32], limit_reject: float) -> NDArray[np.uint8]:
    """A map as 0 to 255 on the scale fixed to the limit: 128 is the limit, 255 about twice; not a number is
    255."""
    scale = LIMIT_LEVEL / limit_reject if limit_reject > 0 else 0.0
    levels = np.nan_to_num(anomaly_map * scale, nan=255.0, posinf=255.0, neginf=0.0)
    rounded: NDArray[np.uint8] = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return rounded
