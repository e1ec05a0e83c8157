"""Laws of part tracking, reject confirmation and the stop on rejects, checked against plain models."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.reject_confirm import RejectConfirm
from station.reject_stop import RejectStop
from station.tracking import Encoder, PartTracking
from station.types import Verdict

TRAVEL = 50
STEP = (
    st.tuples(st.just("move"), st.integers(-5, 30))
    | st.tuples(st.just("part"), st.just(0))
    | st.tuples(st.just("claim"), st.integers(0, 20))
    | st.tuples(st.just("lose"), st.just(0))
)


@given(st.lists(STEP, max_size=80), st.booleans())
def test_only_a_part_claimed_in_time_passes_and_only_at_its_place(
    steps: list[tuple[str, int]], known: bool
) -> None:
    position: int | None = 0 if known else None
    tracking = PartTracking(TRAVEL, position)
    where = 0  # the belt itself, which nobody may know
    triggered_at: dict[int, int] = {}
    claimed: set[int] = set()
    arrived: list[int] = []
    numbers = itertools.count()
    lost_at: int | None = None if known else 0
    for what, value in steps:
        if what == "part":
            number = next(numbers)
            triggered_at[number] = where
            tracking.expect(number, position)
        elif what == "claim":
            if tracking.claim(value):
                assert value in triggered_at
                assert value not in arrived
                claimed.add(value)
        else:
            where += value
            position = None if what == "lose" else where
            arrivals = tracking.advance(position)
            if position is None:
                lost_at = None
                claimed.clear()
            elif lost_at is None and not known:
                lost_at = where
            for arrival in arrivals:
                assert where >= triggered_at[arrival.part_seq] + TRAVEL
                assert arrival.part_seq not in arrived, "a part arrives once"
                arrived.append(arrival.part_seq)
                if arrival.passed:
                    assert arrival.part_seq in claimed
                    assert not tracking.blocked
            known = known and position is not None
            if position is None:
                assert tracking.blocked
    dues = [triggered_at[number] + TRAVEL for number in arrived]
    assert all(where_due <= where + 5 * len(steps) for where_due in dues)


@given(st.lists(st.integers(0, TRAVEL), max_size=30), st.integers(0, 3 * TRAVEL))
def test_after_a_loss_nothing_passes_until_the_belt_has_moved_by_the_whole_way(
    before: list[int], moved: int
) -> None:
    tracking = PartTracking(TRAVEL, 0)
    where = 0
    for number, step in enumerate(before):
        tracking.expect(number, where)
        tracking.claim(number)
        where += step
        tracking.advance(where)
    tracking.advance(None)
    tracking.advance(where)
    tracking.expect(1000, where)
    assert tracking.claim(1000)
    arrivals = tracking.advance(where + moved)
    assert tracking.blocked == (moved < TRAVEL)
    assert [(arrival.part_seq, arrival.passed) for arrival in arrivals] == [(1000, True)] * (moved >= TRAVEL)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(-1000, 1000), max_size=50))
def test_an_encoder_that_wraps_is_a_position_that_does_not(start: int, steps: list[int]) -> None:
    encoder = Encoder(1000)
    assert encoder.read(start) == 0
    total = 0
    for step in steps:
        total += step
        assert encoder.read((start + total) % 2**32) == total


@given(st.integers(0, 2**32 - 1), st.integers(1001, 2**32 - 1001))
def test_a_jump_of_an_encoder_is_no_movement(start: int, jump: int) -> None:
    encoder = Encoder(1000)
    encoder.read(start)
    assert encoder.read((start + jump) % 2**32) is None
    assert encoder.read((start + jump + 3) % 2**32) is not None


@given(
    st.lists(st.sampled_from(Verdict), max_size=60), st.integers(0, 6), st.integers(0, 6), st.integers(1, 10)
)
def test_the_line_stops_exactly_when_the_rule_says(
    verdicts: list[Verdict], consecutive: int, rejects: int, among: int
) -> None:
    rule = RejectStop(consecutive, rejects, among)
    bad = [verdict is not Verdict.PASS for verdict in verdicts]
    for index, verdict in enumerate(verdicts):
        said = rule.decided(verdict)
        so_far = bad[: index + 1]
        streak = len(so_far) - max(
            (place + 1 for place, is_bad in enumerate(so_far) if not is_bad), default=0
        )
        expected = bool(consecutive and streak >= consecutive)
        expected |= bool(rejects and so_far[-1] and sum(so_far[-among:]) >= rejects)
        assert bool(said) == expected
    rule.reset()
    assert not rule.decided(Verdict.PASS)


@given(st.lists(st.sampled_from(["reject", "seen", "wait"]), max_size=60))
def test_each_reject_is_confirmed_by_one_signal_in_order_or_told_once(steps: list[str]) -> None:
    confirm = RejectConfirm(100)
    now_ns, number = 0, 0
    awaited: list[tuple[int, int]] = []
    for step in steps:
        if step == "reject":
            number += 1
            confirm.rejected(number, now_ns)
            awaited.append((now_ns + 100, number))
        elif step == "seen":
            confirm.seen(1)
            awaited = awaited[1:]
        else:
            now_ns += 40
        while awaited and awaited[0][0] <= now_ns:
            assert confirm.overdue(now_ns) == awaited.pop(0)[1]
        assert confirm.overdue(now_ns) is None
        assert confirm.next_due_ns == (awaited[0][0] if awaited else None)


def test_without_a_sensor_nothing_is_awaited() -> None:
    confirm = RejectConfirm(0)
    confirm.rejected(1, 0)
    assert confirm.overdue(10**12) is None


@pytest.mark.parametrize("number", [0, 1, 7])
def test_signals_nobody_waits_for_confirm_nothing_later(number: int) -> None:
    confirm = RejectConfirm(100)
    confirm.seen(number)
    confirm.rejected(1, 0)
    assert confirm.overdue(100) == 1
