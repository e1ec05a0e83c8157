"""The small parts a line is made of: mailbox, decision, regions, levels, health."""

import math
import select
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.types import Trigger
from station.decision import decide
from station.health import LineHealth
from station.mailbox import Mailbox
from station.publishing import map_levels, shrink
from station.regions import find_regions
from station.shifts import ShiftConfig
from station.types import Alarm, Inspection, Reason, Verdict
from varad_core.types import Limits

LIMITS = Limits(recheck=0.9, reject=1.0, false_reject_bound=0.01, confidence=0.95)


def test_mailbox_is_bounded_except_for_what_must_not_be_lost() -> None:
    mailbox: Mailbox[int] = Mailbox(2, exempt=lambda item: item < 0)
    assert [mailbox.put(item) for item in (1, 2, 3, -1)] == [True, True, False, True]
    assert [mailbox.pop() for _ in range(4)] == [1, 2, -1, None]
    assert mailbox.put(4)
    assert mailbox.put(5)
    mailbox.close()


def test_mailbox_wakes_a_selector() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    assert not select.select([mailbox], [], [], 0)[0]
    mailbox.put(1)
    assert select.select([mailbox], [], [], 0)[0]
    mailbox.clear()
    assert not select.select([mailbox], [], [], 0)[0]
    assert mailbox.peek() == 1
    mailbox.close()


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_only_a_finite_score_at_or_below_the_limit_passes(score: float) -> None:
    verdict, reason = decide(score, LIMITS)
    assert (verdict is Verdict.PASS) == (math.isfinite(score) and score <= 0.9)
    assert (verdict is Verdict.NOT_INSPECTED) == (not math.isfinite(score))
    assert isinstance(reason, Reason)


def test_regions_are_boxes_of_what_is_above_the_limit() -> None:
    anomaly_map = np.zeros((10, 20), np.float32)
    anomaly_map[2:4, 5:10] = 2.0
    anomaly_map[8, 19] = 3.0
    assert find_regions(anomaly_map, 1.0) == ((0.25, 0.2, 0.25, 0.2), (0.95, 0.8, 0.05, 0.1))
    assert find_regions(anomaly_map, 5.0) == ((0.95, 0.8, 0.05, 0.1),), "at least its highest value"


def test_map_levels_are_fixed_to_the_limit() -> None:
    levels = map_levels(np.array([[0.0, 2.0, 4.0, 99.0, -1.0, np.nan]], np.float32), 2.0)
    assert levels.tolist() == [[0, 128, 255, 255, 0, 255]]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((100, 200), (32, 64)), ((64, 64), (64, 64)), ((1000, 10), (64, 1)), ((1, 999), (1, 64))],
)
def test_shrink_keeps_the_shape_within_bounds(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert shrink(np.zeros((*shape, 3), np.uint8), 64).shape == (*expected, 3)


def inspection(number: int, verdict: Verdict) -> Inspection:
    trigger = Trigger(number, "CAM 1", time.perf_counter_ns(), time.time_ns())
    return Inspection(trigger, None, None, verdict, Reason.BELOW_LIMIT, "", None, "", time.perf_counter_ns())


def test_a_streak_of_rejects_is_an_alarm_until_a_part_passes() -> None:
    told: list[Alarm] = []
    health = LineHealth([ShiftConfig("A", "00:00")], 3, on_alarm=told.append)
    for number in range(5):
        health.decided(inspection(number, Verdict.REJECT))
    assert [alarm.key for alarm in told] == ["reject-streak"]
    assert health.snapshot().reject_streak == 5
    health.decided(inspection(9, Verdict.PASS))
    (alarm,) = health.snapshot().alarms
    assert not alarm.active, "nobody has seen it yet, so it stays in sight"
    assert health.acknowledge("reject-streak")
    assert health.snapshot().alarms == ()
    assert not health.acknowledge("reject-streak")


def test_a_device_fault_is_an_alarm_and_its_recovery_clears_it() -> None:
    told: list[Alarm] = []
    health = LineHealth([ShiftConfig("A", "00:00")], 0, on_alarm=told.append)
    health.device("camera", "fault", "unplugged", "check the cable")
    health.device("camera", "fault", "still unplugged", "check the cable")
    assert len(told) == 1
    assert health.acknowledge("device-camera")
    assert health.snapshot().alarms[0].acknowledged
    health.device("camera", "ok", "back", "")
    assert health.snapshot().alarms == ()
    assert health.device_state("camera") == "ok"
    assert health.device_state("printer") == "off"


def test_counts_resume_from_the_record() -> None:
    health = LineHealth([ShiftConfig("A", "00:00")], 0, on_alarm=lambda alarm: None)
    now_s = int(time.time())
    health.resume({"PASS": 10}, [(now_s, 4, 3)])
    health.decided(inspection(1, Verdict.PASS))
    snapshot = health.snapshot()
    assert snapshot.shift_counts == {"PASS": 11}
    assert snapshot.trend[-1][1] == 80.0


def test_the_minute_under_way_makes_no_cliff(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: stopped_ns)
    health = LineHealth([ShiftConfig("A", "00:00")], 0, on_alarm=lambda alarm: None)
    now_s = stopped_ns // 10**9
    health.resume({}, [(now_s - 120, 10, 5), (now_s - 60, 19, 19)])
    health.decided(inspection(1, Verdict.REJECT))
    assert [percent for _, percent in health.snapshot().trend] == [50.0, 100.0, 95.0]
