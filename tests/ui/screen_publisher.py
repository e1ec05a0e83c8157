"""An engine's voice for the screen's tests: real ZeroMQ sockets, the station's encoders, rendered parts."""

import json
import queue
import threading
import time
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import zmq

from drivers.buttons import render_part
from station.client import COMMAND_OFFSET, EVENT_OFFSET, PREVIEW_OFFSET, endpoint
from station.types import (
    Alarm,
    DeviceStatus,
    EngineState,
    LedgerSnapshot,
    Preview,
    StatusMessage,
    Verdict,
    VerdictMessage,
)
from station.wire import encode_event, encode_preview

HOST = "127.0.0.1"
MAP_PX = 64


def make_status(**changes: Any) -> StatusMessage:
    """A line that runs well."""
    now_ns = time.time_ns()
    trend = tuple(
        (now_ns / 1e9 - 60 * minute, 98.4 - 0.4 * np.cos(minute / 9)) for minute in range(119, -1, -1)
    )
    status = StatusMessage(
        station="Station 3",
        state=EngineState.RUNNING,
        state_reason="",
        recipe="Button 4-hole 18 mm",
        lot="L-2026-1124",
        user="M. Rossi",
        model="buttons 7f3a9c12",
        shift="B",
        shift_started_unix_ns=now_ns - 3 * 3600 * 10**9,
        ledger=LedgerSnapshot(812, 700, 20, 80, 11, 1, 811),
        shift_counts={"PASS": 4658, "RECHECK": 31, "REJECT": 44, "NOT_INSPECTED": 3},
        reject_streak=0,
        yield_target_percent=97.0,
        latency_ms={"p50": 38.0, "p95": 61.0, "p99": 88.0},
        parts_per_s=1.0,
        takt_ms=1000.0,
        devices=(
            DeviceStatus("camera", "ok", "simulated 512x512"),
            DeviceStatus("worker", "ok", "cpu"),
            DeviceStatus("outputs", "ok", "gate ready"),
            DeviceStatus("record", "ok", "disk 41 % used"),
        ),
        alarms=(),
        trend=trend,
        sent_unix_ns=now_ns,
    )
    return replace(status, **changes)


def make_alarm(**changes: Any) -> Alarm:
    alarm = Alarm(
        "yield", "medium", "Yield below 97 %", "check the fixture clamp", time.time_ns() - 90 * 10**9
    )
    return replace(alarm, **changes)


def make_verdict(part_seq: int = 4812, verdict: Verdict = Verdict.PASS, **changes: Any) -> VerdictMessage:
    score, reason = {
        Verdict.PASS: (0.21, "below limit"),
        Verdict.RECHECK: (0.56, "above recheck limit"),
        Verdict.REJECT: (0.87, "above reject limit"),
        Verdict.NOT_INSPECTED: (None, "frame missing"),
    }[verdict]
    message = VerdictMessage(
        part_seq,
        f"run-{part_seq}",
        verdict,
        reason,
        score,
        0.5,
        0.62,
        41.0,
        1_764_000_000_000_000_000 + part_seq,
    )
    return replace(message, **changes)


def make_map(*peaks: tuple[float, float, float, float], floor: float = 30.0) -> np.ndarray:
    """(MAP_PX, MAP_PX) uint8 with a Gaussian (x, y, radius, height) at each peak, positions as fractions."""
    y, x = np.mgrid[0:MAP_PX, 0:MAP_PX] / MAP_PX
    total = np.full((MAP_PX, MAP_PX), floor) + 10 * np.sin(17 * x) * np.cos(13 * y)
    for centre_x, centre_y, radius, height in peaks:
        total += height * np.exp(-((x - centre_x) ** 2 + (y - centre_y) ** 2) / (2 * radius**2))
    return np.clip(total, 0, 255).astype(np.uint8)


def make_preview(
    part_seq: int = 4812,
    verdict: Verdict = Verdict.PASS,
    map_u8: np.ndarray | None = None,
    size_px: tuple[int, int] = (512, 512),
    **changes: Any,
) -> Preview:
    width, height = size_px
    good = verdict is Verdict.PASS
    image_rgb = render_part(
        seed=5, index=part_seq % 7, defect_rate=0.0 if good else 1.0, width_px=width, height_px=height
    ).image_rgb
    map_u8 = make_map() if map_u8 is None else map_u8
    preview = Preview(
        part_seq=part_seq,
        camera_id="CAM 1",
        verdict=verdict,
        triggered_unix_ns=1_764_000_000_000_000_000 + part_seq,
        fps=1.0,
        width=width,
        height=height,
        image_rgb=image_rgb.tobytes(),
        map_width=map_u8.shape[1] if map_u8.size else 0,
        map_height=map_u8.shape[0] if map_u8.size else 0,
        map_u8=map_u8.tobytes(),
    )
    return replace(preview, **changes)


class ScreenPublisher:
    """Publishes what it is told, and answers commands.

    `commands` has all that came; `previews_wanted` is set once a screen has subscribed.
    """

    def __init__(self, port: int, refuse: str = "") -> None:
        self.port = port
        self.commands: list[dict[str, Any]] = []
        self.previews_wanted = threading.Event()
        self._refuse = refuse
        self._outbox: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="screen-publisher")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def send(self, message: StatusMessage | VerdictMessage | Preview, times: int = 1) -> None:
        is_preview = isinstance(message, Preview)
        data = encode_preview(message) if isinstance(message, Preview) else encode_event(message)
        for _ in range(times):
            self._outbox.put((PREVIEW_OFFSET if is_preview else EVENT_OFFSET, data))

    def _work(self) -> None:
        context = zmq.Context()
        try:
            sockets = {}
            kinds = ((zmq.XPUB, PREVIEW_OFFSET), (zmq.PUB, EVENT_OFFSET), (zmq.REP, COMMAND_OFFSET))
            for kind, offset in kinds:
                sockets[offset] = context.socket(kind)
                sockets[offset].setsockopt(zmq.LINGER, 0)
                sockets[offset].bind(endpoint(HOST, self.port, offset))
            self._ready.set()
            while not self._stop.is_set():
                while not self._outbox.empty():
                    offset, data = self._outbox.get()
                    sockets[offset].send(data)
                if sockets[PREVIEW_OFFSET].poll(0) and sockets[PREVIEW_OFFSET].recv()[:1] == b"\x01":
                    self.previews_wanted.set()
                if sockets[COMMAND_OFFSET].poll(5):
                    self.commands.append(json.loads(sockets[COMMAND_OFFSET].recv()))
                    reply = {"ok": False, "error": self._refuse} if self._refuse else {"ok": True}
                    sockets[COMMAND_OFFSET].send(json.dumps(reply).encode())
        finally:
            context.destroy(linger=0)
