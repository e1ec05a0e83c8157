"""Which shift a moment belongs to.

Shifts are named by their local starting time; each lasts until the next one starts, so the windows tile time
without gap or overlap, over midnight and over the days on which the clocks change. All functions are pure.
`tz` defaults to the machine's own zone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import ClassVar

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ShiftConfig:
    """One shift of the plant.

    Attributes:
        name: short, as on the notice board: "A", "early".
        start: local wall-clock time "HH:MM"; quote it in YAML.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # an unknown key in a file is refused

    name: str
    start: str

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("a shift needs a name")
        if not isinstance(self.start, str) or not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", self.start):
            raise ValueError(
                f'start of shift {self.name} must be "HH:MM", 00:00 to 23:59 (got {self.start!r})'
            )


@dataclass(frozen=True, slots=True)
class ShiftWindow:
    """One shift on one day: `started_unix_ns` <= t < `ended_unix_ns`.

    Attributes:
        key: unique and sortable by day: local date of the start and the shift's name, "2026-11-24 A".
    """

    key: str
    name: str
    started_unix_ns: int
    ended_unix_ns: int


def check_shifts(shifts: Sequence[ShiftConfig]) -> None:
    """Refuse a shift plan that cannot tile a day.

    Raises:
        ValueError: there is no shift, or two share a name or a start.
    """
    if not shifts:
        raise ValueError("at least one shift is needed")
    for what in ("name", "start"):
        values = [getattr(shift, what) for shift in shifts]
        repeated = sorted({value for value in values if values.count(value) > 1})
        if repeated:
            raise ValueError(f"two shifts have the same {what}: {', '.join(repeated)}")


def shift_at(shifts: Sequence[ShiftConfig], unix_ns: int, tz: tzinfo | None = None) -> ShiftWindow:
    """The shift that contains a moment.

    Raises:
        ValueError: see `check_shifts`.
    """
    check_shifts(shifts)
    unix_s = unix_ns // NS_PER_S
    today = datetime.fromtimestamp(unix_s, tz).date()
    starts = _starts(shifts, today, tz)
    for (start_s, day, shift), (end_s, _, _) in pairwise(starts):
        if start_s <= unix_s < end_s:
            return ShiftWindow(f"{day} {shift.name}", shift.name, start_s * NS_PER_S, end_s * NS_PER_S)
    raise AssertionError(f"no shift holds {unix_ns}: the starts around {today} do not surround it")


def last_complete_shift(shifts: Sequence[ShiftConfig], unix_ns: int, tz: tzinfo | None = None) -> ShiftWindow:
    """The shift that ended last before a moment, or at it."""
    return shift_at(shifts, shift_at(shifts, unix_ns, tz).started_unix_ns - 1, tz)


def _starts(
    shifts: Sequence[ShiftConfig], today: date, tz: tzinfo | None
) -> list[tuple[int, date, ShiftConfig]]:
    """Every start from two days before to two after, in order of time.

    A start inside the hour that spring skips moves to the first moment after it; where that is another
    shift's start too, the later-named one holds the time. A start inside the hour that autumn repeats is its
    first occurrence.
    """
    starts: dict[int, tuple[date, ShiftConfig]] = {}
    for offset in range(-2, 3):
        day = today + timedelta(days=offset)
        for shift in sorted(shifts, key=lambda shift: shift.start):
            hour, minute = map(int, shift.start.split(":"))
            moment = datetime.combine(day, time(hour, minute), tzinfo=tz)
            starts[int(moment.timestamp())] = (day, shift)
    return [(start_s, *starts[start_s]) for start_s in sorted(starts)]
