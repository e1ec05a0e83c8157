"""How often, and how soon, something that keeps failing may be started again."""

import time
from collections import deque

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 5.0
_HOUR_S = 3600.0


class Restarts:
    """The first restart comes at once, the next ones after pauses that double; so many an hour."""

    def __init__(self, per_hour: int) -> None:
        self._per_hour = per_hour
        self._lost_s: deque[float] = deque()
        self._pause_s = 0.0
        self._due_s = 0.0
        self.count = 0
        """Losses since the beginning."""

    def lost(self) -> int:
        """It was lost; how often within the last hour."""
        now_s = time.monotonic()
        self.count += 1
        self._lost_s.append(now_s)
        while self._lost_s[0] < now_s - _HOUR_S:
            self._lost_s.popleft()
        self._due_s = now_s + self._pause_s
        self._pause_s = min(max(_FIRST_PAUSE_S, 2 * self._pause_s), _LONGEST_PAUSE_S)
        return len(self._lost_s)

    @property
    def exhausted(self) -> bool:
        """Whether it was lost too often."""
        return len(self._lost_s) > self._per_hour

    @property
    def due(self) -> bool:
        """Whether it may be started again now."""
        return time.monotonic() >= self._due_s

    def steady(self) -> None:
        """It runs well: the next restart comes at once again."""
        self._pause_s = 0.0
