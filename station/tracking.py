"""Where each part is on its way to the gate. Positions in, parts out; no clock, no device.

A position is a time in nanoseconds or a belt's encoder in counts; a part is at the gate when the position has
gone on by `travel` since its trigger. Where the position is unknown, nobody knows which part stands at the
gate: nothing passes until all that were on the belt have gone by.
"""

import heapq
from dataclasses import dataclass

_ENCODER_RANGE = 1 << 32


@dataclass(frozen=True, slots=True)
class Arrival:
    """A part at the gate."""

    part_seq: int
    passed: bool


class PartTracking:
    """A part is rejected unless it was passed before it reached the gate."""

    def __init__(self, travel: int, position: int | None = None) -> None:
        """Nothing is on its way.

        Args:
            travel: trigger to gate, in the position's unit.
            position: known from the start (time), or None (an encoder that has not been read).
        """
        self._travel = travel
        self._position = position
        self._clear_at = position  # from here on no unknown part can stand at the gate; None = unknown
        self._due: list[tuple[int, int]] = []  # (position at the gate, part_seq), a heap
        self._passed: dict[int, bool] = {}  # parts on their way

    @property
    def blocked(self) -> bool:
        """Whether parts that nobody knows may stand at the gate: reject whatever comes."""
        return self._position is None or self._clear_at is None or self._position < self._clear_at

    @property
    def next_due(self) -> int | None:
        """The position at which the next part reaches the gate."""
        return self._due[0][0] if self._due else None

    def expect(self, part_seq: int, position: int | None) -> None:
        """A part was triggered at `position`; None = unknown, and it will be rejected."""
        if position is not None and self._position is not None:
            heapq.heappush(self._due, (position + self._travel, part_seq))
            self._passed[part_seq] = False

    def claim(self, part_seq: int) -> bool:
        """Pass a part; False, and it is rejected, when it has reached the gate or its place is unknown."""
        if part_seq not in self._passed:
            return False
        self._passed[part_seq] = True
        return True

    def advance(self, position: int | None) -> list[Arrival]:
        """The parts that have reached the gate now, in order. None: the position is lost, with all parts."""
        if position is None:
            self._due.clear()
            self._passed.clear()
            self._position = self._clear_at = None
            return []
        if self._clear_at is None:
            self._clear_at = position + self._travel
        self._position = position
        arrived = []
        while self._due and self._due[0][0] <= position:
            part_seq = heapq.heappop(self._due)[1]
            arrived.append(Arrival(part_seq, self._passed.pop(part_seq) and not self.blocked))
        return arrived


class Encoder:
    """A 32-bit counter that wraps, as a position that does not."""

    def __init__(self, largest_step: int) -> None:
        """Nothing is known yet.

        Args:
            largest_step: more counts than this between two readings are no movement: the counter was reset.
        """
        self._largest_step = largest_step
        self._raw: int | None = None
        self._position = 0

    def read(self, raw: int | None) -> int | None:
        """The position for the counter's value (0 to 2**32 - 1); None when it is unknown or has jumped."""
        last, self._raw = self._raw, raw
        if raw is None:
            return None
        if last is None:
            return self._position
        step = (raw - last + _ENCODER_RANGE // 2) % _ENCODER_RANGE - _ENCODER_RANGE // 2
        if abs(step) > self._largest_step:
            return None
        self._position += step
        return self._position
