"""The station's own types: verdict, inspection, engine state, and what the screens are told.

Standard library only at run time, so that the screen may import them without the detector or a driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drivers.types import Frame, Trigger
    from varad_core.types import AnomalyResult, Limits


class Verdict(StrEnum):
    """What becomes of a part. Only PASS goes to the good lane."""

    PASS = "PASS"
    RECHECK = "RECHECK"
    REJECT = "REJECT"
    NOT_INSPECTED = "NOT_INSPECTED"


class Reason(StrEnum):
    """Why a part got its verdict; the Pareto of the shift report counts these."""

    BELOW_LIMIT = "below limit"
    ABOVE_RECHECK = "above recheck limit"
    ABOVE_REJECT = "above reject limit"
    SCORE_NOT_FINITE = "score not finite"
    FRAME_FAILED = "frame failed"
    FRAME_MISSING = "frame missing"
    FRAME_REPEATED = "frame repeated"
    TRIGGER_MISSED = "trigger missed"
    CAMERA_LOST = "camera lost"
    WRONG_SIZE = "wrong image size"
    QUEUE_FULL = "queue full"
    DEADLINE = "deadline passed"
    WORKER_DOWN = "worker down"
    WORKER_ERROR = "worker error"
    GATE_REACHED = "gate reached before verdict"
    PLC_LOST = "PLC lost"
    NOT_ACKNOWLEDGED = "PLC did not acknowledge"
    PAUSED = "line paused"
    STOPPED = "line stopped"


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """One part's whole story, from trigger to verdict. Everything after the inspection stage is a reader of
    this.

    Attributes:
        frame: None when there was no usable image.
        result: None when the detector gave none.
        detail: one line in words, empty when `reason` says it all.
        limits: those of the model that had the part, or would have got it next; None when none was ready.
        model_id: of that model; empty when none was ready.
        decided_ns: `perf_counter_ns` at the verdict.
        timings_ms: stage -> milliseconds (grab, queue, detect and the detector's own stages).
        regions: boxes (x, y, width, height) of map areas above the recheck limit, as fractions of the image;
            largest first.
        views: of a part that several cameras have seen, each one's; all else here is the worst one's.
    """

    trigger: Trigger
    frame: Frame | None
    result: AnomalyResult | None
    verdict: Verdict
    reason: Reason
    detail: str
    limits: Limits | None
    model_id: str
    decided_ns: int
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    regions: tuple[tuple[float, float, float, float], ...] = ()
    views: tuple[Inspection, ...] = ()

    @property
    def latency_ms(self) -> float:
        """Trigger to verdict in milliseconds."""
        return (self.decided_ns - self.trigger.triggered_ns) / 1e6


class EngineState(StrEnum):
    """Where the engine is. RUNNING and FAULT take parts; PAUSED rejects what still arrives."""

    STARTING = "STARTING"
    READY = "READY"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    FAULT = "FAULT"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """The account of parts at one moment.

    `triggered == passed + recheck + reject + not_inspected + in_flight`, always; at stop `triggered == rows`.
    """

    triggered: int = 0
    passed: int = 0
    recheck: int = 0
    reject: int = 0
    not_inspected: int = 0
    in_flight: int = 0
    rows: int = 0

    def balanced(self) -> bool:
        """Whether the equation holds."""
        decided = self.passed + self.recheck + self.reject + self.not_inspected
        return self.triggered == decided + self.in_flight and self.rows <= decided


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """One device on the screen: `state` is ok, warn, fault or off; `text` says it in words."""

    name: str
    state: str
    text: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """One abnormal condition (ISA-18.2): what it is, why, and what to do."""

    key: str
    priority: str  # high, medium, low
    title: str
    action: str
    raised_unix_ns: int
    acknowledged: bool = False
    active: bool = True


@dataclass(frozen=True, slots=True)
class VerdictMessage:
    """One decided part, as published to the screens.

    `regions` are boxes (x, y, width, height) of map areas above the recheck limit, as fractions of the image
    (0 to 1).
    """

    part_seq: int
    uid: str
    verdict: Verdict
    reason: str
    score: float | None
    limit_recheck: float
    limit_reject: float
    latency_ms: float
    triggered_unix_ns: int
    regions: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class StatusMessage:
    """The whole line at one moment, published several times a second and on every change.

    Attributes:
        ledger: this run's account.
        shift_counts: verdict -> parts since the shift began (from the record, kept up to date in memory).
        reject_streak: parts in a row that did not pass.
        latency_ms: p50, p95, p99 of trigger to verdict over the last parts.
        trend: (unix seconds, yield in percent) points, oldest first, last 2 h at most.
    """

    station: str
    state: EngineState
    state_reason: str
    recipe: str
    lot: str
    user: str
    model: str
    shift: str
    shift_started_unix_ns: int
    ledger: LedgerSnapshot
    shift_counts: Mapping[str, int]
    reject_streak: int
    yield_target_percent: float
    latency_ms: Mapping[str, float]
    parts_per_s: float
    takt_ms: float
    devices: tuple[DeviceStatus, ...]
    alarms: tuple[Alarm, ...]
    trend: tuple[tuple[float, float], ...]
    sent_unix_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """The latest inspected picture for the screens; older ones are dropped on the way, by design.

    Attributes:
        image_rgb: (height, width, 3) uint8 bytes, reduced for the screen.
        map_u8: (map_height, map_width) uint8 bytes; 0 = nothing, 128 = exactly the reject limit, 255 = twice
            the limit.
            The scale is fixed to the limit, never to the image. Empty when there is no map.
    """

    part_seq: int
    camera_id: str
    verdict: Verdict
    triggered_unix_ns: int
    fps: float
    width: int
    height: int
    image_rgb: bytes
    map_width: int
    map_height: int
    map_u8: bytes
    facts: Mapping[str, Any] = field(default_factory=dict)
