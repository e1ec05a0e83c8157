"""The account of parts: every trigger ends in exactly one verdict and one row, or the station says which one
did not.

triggered == passed + recheck + reject + not_inspected + in_flight      at every moment
triggered == rows                                                       at stop
"""

import threading
from collections import Counter
from collections.abc import Mapping

from station.types import LedgerSnapshot, Reason, Verdict


class LedgerError(Exception):
    """A part was opened twice, decided twice, or recorded without a verdict: a fault of this program."""


def account_text(account: LedgerSnapshot) -> str:
    """The equation in one line."""
    return (
        f"triggered {account.triggered} = {account.passed} pass + {account.recheck} recheck "
        f"+ {account.reject} reject + {account.not_inspected} not inspected "
        f"+ {account.in_flight} in flight; {account.rows} rows"
    )


class Ledger:
    """Counts parts under one lock; any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight: set[int] = set()
        self._unrecorded: set[int] = set()
        self._triggered = 0
        self._rows = 0
        self._decided: Counter[tuple[Verdict, Reason]] = Counter()

    def open(self, part_seq: int) -> None:
        """A part was triggered."""
        with self._lock:
            if part_seq in self._in_flight or part_seq in self._unrecorded:
                raise LedgerError(f"part {part_seq} was triggered twice")
            self._in_flight.add(part_seq)
            self._triggered += 1

    def decide(self, part_seq: int, verdict: Verdict, reason: Reason) -> None:
        """A part has its verdict; it can have only one."""
        with self._lock:
            if part_seq not in self._in_flight:
                raise LedgerError(f"part {part_seq} got {verdict} but is not in flight")
            self._in_flight.remove(part_seq)
            self._unrecorded.add(part_seq)
            self._decided[verdict, reason] += 1

    def record(self, part_seq: int) -> None:
        """A part's row is safely on disk."""
        with self._lock:
            if part_seq not in self._unrecorded:
                raise LedgerError(f"part {part_seq} was recorded without a verdict, or twice")
            self._unrecorded.remove(part_seq)
            self._rows += 1

    def snapshot(self) -> LedgerSnapshot:
        """The account at this moment."""
        return self.by_reason()[0]

    def by_reason(self) -> tuple[LedgerSnapshot, Mapping[tuple[Verdict, Reason], int]]:
        """The account, and at the same moment the decided parts by verdict and reason."""
        with self._lock:
            verdicts: Counter[Verdict] = Counter()
            for (verdict, _), parts in self._decided.items():
                verdicts[verdict] += parts
            account = LedgerSnapshot(
                triggered=self._triggered,
                passed=verdicts[Verdict.PASS],
                recheck=verdicts[Verdict.RECHECK],
                reject=verdicts[Verdict.REJECT],
                not_inspected=verdicts[Verdict.NOT_INSPECTED],
                in_flight=len(self._in_flight),
                rows=self._rows,
            )
            return account, dict(self._decided)
