"""The program of the simulated PLC, one `scan` after another: what a PLC's ladder does with the handshake.

It triggers parts while the station is READY, carries each to the gate in its own time, and opens the good
lane only for a confirmed PASS under a living heartbeat. Time is given to it, so that tests need not wait.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from drivers.plc import PlcSignals, StationSignals, VerdictCode, next_number

_WORD = 0x10000
_DOUBLE_WORD = 0x1_0000_0000


@dataclass(slots=True, kw_only=True)
class LadderSettings:
    """What the simulated line is like; may be changed while it runs.

    Attributes:
        interval_s: time between two parts; 0 = the PLC triggers none.
        travel_s: trigger to gate.
        sensor_s: gate to the sensor that sees rejected parts leaving.
        acknowledge_s: how long a result waits for its acknowledge; infinite = it never comes.
        heartbeat_s: a station whose heartbeat stands still for so long is lost.
        counts_per_s: speed of the belt's encoder.
        sees_rejects: the sensor behind the gate works.
    """

    interval_s: float = 0.25
    travel_s: float = 1.5
    sensor_s: float = 0.1
    acknowledge_s: float = 0.0
    heartbeat_s: float = 1.0
    counts_per_s: float = 1000.0
    sees_rejects: bool = True


@dataclass(slots=True)
class _Part:
    at_gate_s: float
    passed: bool = False


@dataclass(slots=True)
class LadderCounts:
    """What the PLC has seen since it started.

    Attributes:
        triggered: parts it has triggered.
        verdicts: results offered, by verdict code.
        good_lane: parts sent to the good lane.
        reject_lane: parts sent to the reject lane.
        confirmed: results that both sides know of.
        unconfirmed: results that the station withdrew: no acknowledge in time.
        heartbeat_losses: how often the station's heartbeat stood still.
    """

    triggered: int = 0
    verdicts: Counter[int] = field(default_factory=Counter)
    good_lane: int = 0
    reject_lane: int = 0
    confirmed: int = 0
    unconfirmed: int = 0
    heartbeat_losses: int = 0


class Ladder:
    """State of one PLC from its start on."""

    def __init__(
        self,
        settings: LadderSettings,
        session: int,
        on_sorted: Callable[[int, int, bool], None] | None = None,
    ) -> None:
        """As after power-on.

        Args:
            settings: of the simulated line.
            session: another number at each start, 0 to 65535.
            on_sorted: told of each part at the gate: session, trigger, and whether it went to the good lane.
        """
        self.settings = settings
        self._on_sorted = on_sorted or (lambda session, trigger, good: None)
        self.counts = LadderCounts()
        self.alive = False
        """Whether the station's heartbeat changes."""
        self._session = session
        self._heartbeat = self._trigger = self._acknowledge = self._rejected = 0
        self._part_id = 0
        self._encoder = 0.0
        self._last_scan_s: float | None = None
        self._next_part_s = 0.0
        self._parts: dict[int, _Part] = {}  # by trigger
        self._leaving: deque[float] = deque()  # when rejected parts are at the sensor
        self._beat = (-1, -1)  # the station's session and heartbeat
        self._beat_s = 0.0
        self._offered = self._offered_verdict = self._offered_trigger = 0
        self._offered_s = 0.0
        self._confirmed = 0

    @property
    def in_transit(self) -> int:
        """Parts between camera and gate."""
        return len(self._parts)

    def scan(self, now_s: float, station: StationSignals | None) -> PlcSignals:
        """One pass through the program.

        Args:
            now_s: any clock that only goes forward, seconds.
            station: what stands in the station's registers; None when that is no handshake.
        """
        elapsed_s = now_s - (self._last_scan_s if self._last_scan_s is not None else now_s)
        self._last_scan_s = now_s
        self._encoder = (self._encoder + elapsed_s * self.settings.counts_per_s) % _DOUBLE_WORD
        self._heartbeat = (self._heartbeat + 1) % _WORD
        self._watch(now_s, station)
        if station is not None and self.alive:
            self._take_result(now_s, station)
        self._gate(now_s)
        if station is not None and self.alive and station.ready:
            self._trigger_part(now_s)
        return PlcSignals(
            session=self._session,
            heartbeat=self._heartbeat,
            trigger=self._trigger,
            part_id=self._part_id,
            acknowledge=self._acknowledge,
            encoder=int(self._encoder),
            rejected=self._rejected,
        )

    def _watch(self, now_s: float, station: StationSignals | None) -> None:
        """The station is alive while its heartbeat changes; another session is another station."""
        if station is not None and (station.session, station.heartbeat) != self._beat:
            if station.session == self._beat[0]:
                self.alive = True
            else:  # what it offered before we knew it is nobody's
                self._offered = self._confirmed = station.result
                self._acknowledge = station.result
                for part in self._parts.values():  # who confirmed them may have died before it recorded them
                    part.passed = False
            self._beat, self._beat_s = (station.session, station.heartbeat), now_s
        elif self.alive and now_s - self._beat_s > self.settings.heartbeat_s:
            self.alive = False
            self.counts.heartbeat_losses += 1

    def _take_result(self, now_s: float, station: StationSignals) -> None:
        """Offered, acknowledged, confirmed; an offer is remembered, its registers may hold the next one."""
        counts = self.counts
        if station.confirmed == self._offered != self._confirmed:
            self._confirmed = self._offered
            counts.confirmed += 1
            part = self._parts.get(self._offered_trigger)
            if part is not None and self._offered_verdict == VerdictCode.PASS:
                part.passed = True
        if station.valid and station.result != self._offered:
            counts.unconfirmed += self._offered != self._confirmed
            counts.verdicts[station.verdict] += 1
            self._offered, self._offered_s = station.result, now_s
            self._offered_verdict, self._offered_trigger = station.verdict, station.trigger
        if now_s - self._offered_s >= self.settings.acknowledge_s:
            self._acknowledge = self._offered

    def _gate(self, now_s: float) -> None:
        for trigger, part in list(self._parts.items()):
            if part.at_gate_s > now_s:
                continue
            del self._parts[trigger]
            good = part.passed and self.alive
            self._on_sorted(self._session, trigger, good)
            if good:
                self.counts.good_lane += 1
            else:
                self.counts.reject_lane += 1
                self._leaving.append(now_s + self.settings.sensor_s)
        while self._leaving and self._leaving[0] <= now_s:
            self._leaving.popleft()
            if self.settings.sees_rejects:
                self._rejected = (self._rejected + 1) % _WORD

    def _trigger_part(self, now_s: float) -> None:
        if not self.settings.interval_s or now_s < self._next_part_s:
            return
        self._next_part_s = now_s + self.settings.interval_s
        self._trigger = next_number(self._trigger)
        self._part_id += 1
        self.counts.triggered += 1
        self._parts[self._trigger] = _Part(now_s + self.settings.travel_s)
