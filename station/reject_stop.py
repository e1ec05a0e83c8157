"""When so many parts are rejected that the line must not go on. Verdicts in, a reason out."""

import threading
from collections import deque

from station.types import Verdict


class RejectStop:
    """N rejects in a row, or X among the last N parts; whatever is not PASS counts. For any thread."""

    def __init__(self, consecutive: int, rejects: int, among: int) -> None:
        """Nothing has been seen.

        Args:
            consecutive: so many in a row stop the line; 0 = never.
            rejects: so many among the last `among` stop it; 0 = never.
            among: how many parts are looked back at, at least 1.
        """
        self._consecutive = consecutive
        self._rejects = rejects
        self._lock = threading.Lock()
        self._last: deque[bool] = deque(maxlen=among)
        self._streak = 0

    def decided(self, verdict: Verdict) -> str:
        """Why the line must stop now; empty when it may go on."""
        rejected = verdict is not Verdict.PASS
        with self._lock:
            self._last.append(rejected)
            self._streak = self._streak + 1 if rejected else 0
            if self._consecutive and self._streak >= self._consecutive:
                return f"{self._streak} rejects in a row"
            if rejected and self._rejects and sum(self._last) >= self._rejects:
                return f"{sum(self._last)} rejects among the last {len(self._last)} parts"
        return ""

    def reset(self) -> None:
        """Somebody has looked into it: count anew."""
        with self._lock:
            self._last.clear()
            self._streak = 0
