"""What the line knows of itself: latencies, yield, streaks, devices, alarms. One lock, frozen snapshots
out."""

import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from station.shifts import ShiftConfig, ShiftWindow, shift_at
from station.types import Alarm, DeviceStatus, Inspection, Verdict

_LATENCIES = 1000
_RATE_PARTS = 50
LATENCY_BUCKETS_MS = (10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000)
_TREND_MINUTES = 120
_PRIORITIES = ("high", "medium", "low")


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """The line's health at one moment; see `station.types.StatusMessage` for the fields' meaning."""

    shift: ShiftWindow
    shift_counts: Mapping[str, int]
    reject_streak: int
    latency_ms: Mapping[str, float]
    parts_per_s: float
    devices: tuple[DeviceStatus, ...]
    alarms: tuple[Alarm, ...]
    trend: tuple[tuple[float, float], ...]


class LineHealth:
    """Kept up to date by every stage; any thread may call it."""

    def __init__(
        self,
        shifts: Sequence[ShiftConfig],
        max_consecutive_rejects: int,
        on_alarm: Callable[[Alarm], None],
    ) -> None:
        """Start with nothing known.

        Args:
            shifts: the plant's.
            max_consecutive_rejects: so many in a row raise an alarm; 0 = never.
            on_alarm: told of each alarm as it comes, for the record.
        """
        self._shifts = shifts
        self._max_streak = max_consecutive_rejects
        self._on_alarm = on_alarm
        self._lock = threading.Lock()
        self._shift = shift_at(shifts, time.time_ns())
        self._counts: Counter[str] = Counter()
        self._streak = 0
        self._latencies_ms: deque[float] = deque(maxlen=_LATENCIES)
        self._latency_counts = [0] * (len(LATENCY_BUCKETS_MS) + 1)
        self._latency_sum_ms = 0.0
        self._decided_s: deque[float] = deque(maxlen=_RATE_PARTS)
        self._minutes: dict[int, tuple[int, int]] = {}  # minute -> (parts, passed)
        self._devices: dict[str, DeviceStatus] = {}
        self._alarms: dict[str, Alarm] = {}

    def resume(self, shift_counts: Mapping[str, int], minutes: Iterable[tuple[int, int, int]]) -> None:
        """Carry on from the record: counts of the current shift, (unix seconds, parts, passed) a minute."""
        with self._lock:
            self._counts.update(shift_counts)
            for unix_s, parts, passed in minutes:
                before = self._minutes.get(unix_s // 60, (0, 0))
                self._minutes[unix_s // 60] = (before[0] + parts, before[1] + passed)

    def decided(self, inspection: Inspection) -> None:
        """Count a part."""
        passed = inspection.verdict is Verdict.PASS
        with self._lock:
            self._turn_shift(inspection.trigger.triggered_unix_ns)
            self._counts[inspection.verdict] += 1
            self._streak = 0 if passed else self._streak + 1
            if inspection.verdict is not Verdict.NOT_INSPECTED:
                self._latencies_ms.append(inspection.latency_ms)
                self._latency_counts[bisect_left(LATENCY_BUCKETS_MS, inspection.latency_ms)] += 1
                self._latency_sum_ms += inspection.latency_ms
            self._decided_s.append(inspection.decided_ns / 1e9)
            minute = inspection.trigger.triggered_unix_ns // 60_000_000_000
            parts, good = self._minutes.get(minute, (0, 0))
            self._minutes[minute] = (parts + 1, good + passed)
            for old in [m for m in self._minutes if m <= minute - _TREND_MINUTES]:
                del self._minutes[old]
            streak = self._streak
        if self._max_streak and streak == self._max_streak:
            self.alarm(
                "reject-streak", "high", f"{streak} REJECTS IN A ROW", "check feeder, light and camera"
            )
        elif passed:
            self.clear("reject-streak")

    def _turn_shift(self, unix_ns: int) -> None:
        if unix_ns >= self._shift.ended_unix_ns:
            self._shift = shift_at(self._shifts, unix_ns)
            self._counts.clear()

    # --- devices and alarms

    def device(self, name: str, state: str, text: str, action: str) -> None:
        """A device's state changed; a fault raises an alarm that its recovery clears."""
        if state == "fault":  # before the state: nobody sees a fault without its alarm
            self.alarm(f"device-{name.lower()}", "high", f"{name.upper()} FAULT: {text}", action)
        with self._lock:
            self._devices[name] = DeviceStatus(name, state, text)
        if state != "fault":
            self.clear(f"device-{name.lower()}")

    def device_state(self, name: str) -> str:
        """ok, warn, fault, or off when nothing is known."""
        with self._lock:
            return self._devices[name].state if name in self._devices else "off"

    def alarm(self, key: str, priority: str, title: str, action: str) -> None:
        """Raise an alarm; one that is active already only takes the new words."""
        with self._lock:
            known = self._alarms.get(key)
            if known and known.active:
                self._alarms[key] = replace(known, title=title, action=action)
                return
            alarm = Alarm(key, priority, title, action, time.time_ns())
            self._alarms[key] = alarm
        self._on_alarm(alarm)

    def clear(self, key: str) -> None:
        """The condition is over; an alarm nobody has acknowledged stays in sight, inactive."""
        with self._lock:
            known = self._alarms.get(key)
            if known is None:
                return
            if known.acknowledged:
                del self._alarms[key]
            elif known.active:
                self._alarms[key] = replace(known, active=False)

    def acknowledge(self, key: str) -> bool:
        """Somebody has seen it; False when there is no such alarm."""
        with self._lock:
            known = self._alarms.get(key)
            if known is None:
                return False
            if known.active:
                self._alarms[key] = replace(known, acknowledged=True)
            else:
                del self._alarms[key]
            return True

    # --- out

    def latency_histogram(self) -> tuple[tuple[int, ...], float]:
        """Inspected parts by trigger to verdict: up to each of `LATENCY_BUCKETS_MS` and over; their sum in
        ms."""
        with self._lock:
            return tuple(self._latency_counts), self._latency_sum_ms

    def snapshot(self) -> HealthSnapshot:
        """The line's health now."""
        with self._lock:
            self._turn_shift(time.time_ns())
            latencies = np.array(self._latencies_ms)
            alarms = sorted(
                self._alarms.values(),
                key=lambda alarm: (
                    alarm.acknowledged,
                    _PRIORITIES.index(alarm.priority),
                    -alarm.raised_unix_ns,
                ),
            )
            return HealthSnapshot(
                shift=self._shift,
                shift_counts=dict(self._counts),
                reject_streak=self._streak,
                latency_ms=percentiles_ms(latencies),
                parts_per_s=self._parts_per_s(),
                devices=tuple(self._devices.values()),
                alarms=tuple(alarms),
                trend=self._trend(),
            )

    def _trend(self) -> tuple[tuple[float, float], ...]:
        """The yield of every minute; the one under way is counted with the one before, or it would jump."""
        points = []
        under_way = time.time_ns() // 60_000_000_000
        for minute in sorted(self._minutes):
            parts, good = self._minutes[minute]
            earlier, passed = self._minutes.get(minute - 1, (0, 0)) if minute == under_way else (0, 0)
            points.append((minute * 60.0, 100.0 * (good + passed) / (parts + earlier)))
        return tuple(points)

    def _parts_per_s(self) -> float:
        if len(self._decided_s) < 2 or time.perf_counter() - self._decided_s[-1] > 10:
            return 0.0
        span_s = self._decided_s[-1] - self._decided_s[0]
        return (len(self._decided_s) - 1) / span_s if span_s > 0 else 0.0


def percentiles_ms(latencies_ms: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> dict[str, float]:
    """p50, p95 and p99; empty when there is nothing."""
    if not len(latencies_ms):
        return {}
    p50, p95, p99 = np.percentile(latencies_ms, (50, 95, 99))
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}
