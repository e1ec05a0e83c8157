"""Has each rejected part been seen leaving? Times in, parts out; no clock, no device."""

from collections import deque


class RejectConfirm:
    """Each reject must be followed by a signal of the sensor behind the gate, in order."""

    def __init__(self, within_ns: int) -> None:
        """Nothing is awaited.

        Args:
            within_ns: gate to sensor, at most; 0 = there is no sensor, nothing is ever awaited.
        """
        self._within_ns = within_ns
        self._awaited: deque[tuple[int, int]] = deque()  # (until, part_seq)

    @property
    def next_due_ns(self) -> int | None:
        """When the next part will be overdue."""
        return self._awaited[0][0] if self._awaited else None

    def rejected(self, part_seq: int, now_ns: int) -> None:
        """The gate has rejected a part."""
        if self._within_ns:
            self._awaited.append((now_ns + self._within_ns, part_seq))

    def seen(self, number: int) -> None:
        """The sensor has seen so many more parts; more than are awaited confirm nothing else."""
        for _ in range(min(number, len(self._awaited))):
            self._awaited.popleft()

    def overdue(self, now_ns: int) -> int | None:
        """A part that should have been seen by now, once; None when there is none."""
        if self._awaited and self._awaited[0][0] <= now_ns:
            return self._awaited.popleft()[1]
        return None
