import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.shifts import ShiftConfig, check_shifts, last_complete_shift, shift_at

S = 1_000_000_000
BERLIN = ZoneInfo("Europe/Berlin")
THREE = (ShiftConfig("A", "06:00"), ShiftConfig("B", "14:00"), ShiftConfig("C", "22:00"))

clock = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda hm: f"{hm[0]:02}:{hm[1]:02}")
plans = st.lists(clock, min_size=1, max_size=6, unique=True).map(
    lambda starts: tuple(ShiftConfig(f"S{n}", start) for n, start in enumerate(starts))
)
# Lord Howe changes by half an hour, Kathmandu lies at +05:45, Apia skipped a whole day.
zones = st.sampled_from(
    [
        *map(ZoneInfo, ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
        ZoneInfo("Pacific/Apia"),
        timezone(timedelta(hours=-11)),
    ]
)
moments = st.integers(1_300_000_000 * S, 1_900_000_000 * S)


def unix_ns(local: str, tz: ZoneInfo = BERLIN) -> int:
    return int(datetime.fromisoformat(local).replace(tzinfo=tz).timestamp()) * S


@given(plan=plans, tz=zones, moment=moments)
def test_windows_tile_time_without_gap_or_overlap(
    plan: tuple[ShiftConfig, ...], tz: ZoneInfo, moment: int
) -> None:
    keys = set()
    window = shift_at(plan, moment, tz)
    assert window.started_unix_ns <= moment < window.ended_unix_ns
    for _ in range(8):
        assert shift_at(plan, window.started_unix_ns, tz) == window
        assert shift_at(plan, window.ended_unix_ns - 1, tz) == window
        following = shift_at(plan, window.ended_unix_ns, tz)
        assert following.started_unix_ns == window.ended_unix_ns
        assert last_complete_shift(plan, window.ended_unix_ns, tz) == window
        assert last_complete_shift(plan, following.ended_unix_ns - 1, tz) == window
        keys.add(window.key)
        window = following
    assert len(keys) == 8


@pytest.fixture(scope="module")
def machine_in_berlin() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("machine_in_berlin")
@given(plan=plans, moment=moments)
def test_without_a_zone_the_machines_own_is_meant(plan: tuple[ShiftConfig, ...], moment: int) -> None:
    assert shift_at(plan, moment) == shift_at(plan, moment, BERLIN)


@given(name=st.sampled_from("ABC"), day=st.dates(datetime(2026, 1, 1).date(), datetime(2027, 1, 1).date()))
def test_the_key_is_the_local_date_of_the_start(name: str, day: object) -> None:
    start = next(shift.start for shift in THREE if shift.name == name)
    window = shift_at(THREE, unix_ns(f"{day} {start}"), BERLIN)
    assert (window.key, window.name) == (f"{day} {name}", name)


@pytest.mark.parametrize(
    ("local", "key", "hours"),
    [
        ("2026-11-24 06:00", "2026-11-24 A", 8),
        ("2026-11-24 05:59", "2026-11-23 C", 8),
        ("2026-11-24 23:30", "2026-11-24 C", 8),
        ("2026-03-29 03:30", "2026-03-28 C", 7),  # the night the clocks go forward
        ("2026-10-25 03:30", "2026-10-24 C", 9),  # and back
    ],
)
def test_nights_and_the_days_the_clocks_change(local: str, key: str, hours: int) -> None:
    window = shift_at(THREE, unix_ns(local), BERLIN)
    assert window.key == key
    assert window.ended_unix_ns - window.started_unix_ns == hours * 3600 * S


def test_a_start_in_the_hour_that_spring_skips_begins_right_after_it() -> None:
    plan = (ShiftConfig("A", "02:30"), ShiftConfig("B", "12:00"))
    window = shift_at(plan, unix_ns("2026-03-29 03:30"), BERLIN)
    assert window.key == "2026-03-29 A"
    assert datetime.fromtimestamp(window.started_unix_ns // S, UTC).hour == 1


def test_one_shift_lasts_the_whole_day() -> None:
    window = shift_at((ShiftConfig("day", "00:00"),), unix_ns("2026-11-24 23:59"), BERLIN)
    assert (window.key, window.ended_unix_ns - window.started_unix_ns) == ("2026-11-24 day", 86_400 * S)


@pytest.mark.parametrize("start", ["6:00", "24:00", "06:60", "0600", "06:00 ", "", 360, None])
def test_a_start_that_is_no_time_is_refused(start: object) -> None:
    with pytest.raises(ValueError, match='start of shift A must be "HH:MM"'):
        ShiftConfig("A", start)  # type: ignore[arg-type]


def test_plans_that_cannot_tile_a_day_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        check_shifts(())
    with pytest.raises(ValueError, match="same name: A"):
        check_shifts((ShiftConfig("A", "06:00"), ShiftConfig("A", "14:00")))
    with pytest.raises(ValueError, match="same start: 06:00"):
        shift_at((ShiftConfig("A", "06:00"), ShiftConfig("B", "06:00")), 0)
    with pytest.raises(ValueError, match="needs a name"):
        ShiftConfig(" ", "06:00")
