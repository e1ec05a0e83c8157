"""Both sides of the handshake on a clock of their own: what may never happen, whatever breaks."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.config import ModbusPlcConfig
from drivers.ladder import Ladder, LadderSettings
from drivers.plc import PlcSignals, StationSignals
from drivers.types import Trigger
from station.handshake import MAX_MISSED_TRIGGERS, Handshake
from station.types import Inspection, Reason, Verdict

MS = 1_000_000


class Conversation:
    """A station that judges every part at once, and a PLC that triggers them; 10 ms a turn."""

    def __init__(self, verdicts: list[Verdict] | None = None, **ladder: float) -> None:
        self.settings = LadderSettings(**({"interval_s": 0.05, "travel_s": 0.5} | ladder))
        self.sessions = itertools.count(1)
        self.ladder = Ladder(self.settings, next(self.sessions))
        self.station: StationSignals | None = None
        self.heard = PlcSignals()
        self.now_ns = 10**12
        self.connected = True
        self.at_gate = False
        """Every verdict comes behind the gate."""
        self.verdicts = itertools.cycle(verdicts or [Verdict.PASS])
        self.triggered: list[Trigger] = []
        self.missed: list[int] = []
        self.settled: dict[int, Inspection] = {}
        self.plc_good = 0
        self.handshake = Handshake(
            ModbusPlcConfig(host="plc", heartbeat_ms=200, acknowledge_ms=100),
            77,
            1000.0,
            self.settle,
            self.part,
        )

    def part(self, missed: bool, part_id: int | None = None) -> Trigger:
        trigger = Trigger(len(self.triggered) + 1, "CAM 1", self.now_ns, self.now_ns, part_id)
        self.triggered.append(trigger)
        verdict, reason = next(self.verdicts), Reason.BELOW_LIMIT
        if missed:
            self.missed.append(trigger.part_seq)
            verdict, reason = Verdict.NOT_INSPECTED, Reason.TRIGGER_MISSED
        self.handshake.offer(
            Inspection(trigger, None, None, verdict, reason, "", None, "", self.now_ns, {"detect": 1.0})
        )
        return trigger

    def settle(self, inspection: Inspection) -> Inspection:
        assert inspection.trigger.part_seq not in self.settled, "one verdict a part"
        if self.at_gate and inspection.verdict is Verdict.PASS:
            inspection = replace(inspection, verdict=Verdict.NOT_INSPECTED, reason=Reason.GATE_REACHED)
        self.settled[inspection.trigger.part_seq] = inspection
        return inspection

    def turn(self, number: int = 1, *, runs: bool = True, garbage: PlcSignals | None = None) -> None:
        for _ in range(number):
            self.now_ns += 10 * MS
            if runs:
                before = self.ladder.counts.good_lane
                self.heard = self.ladder.scan(self.now_ns / 1e9, self.station)
                self.plc_good += self.ladder.counts.good_lane - before
            self.handshake.step((garbage or self.heard) if self.connected else "cable out", self.now_ns)
            if self.connected:
                self.station = self.handshake.say(ready=True, busy=False, fault=False)

    def restart_plc(self) -> None:
        self.ladder = Ladder(self.settings, next(self.sessions))
        self.station = None

    def of(self, verdict: Verdict) -> list[Inspection]:
        return [inspection for inspection in self.settled.values() if inspection.verdict is verdict]

    def reasons(self) -> set[Reason]:
        return {inspection.reason for inspection in self.settled.values()}


def test_each_part_gets_through_with_its_own_trigger_and_id() -> None:
    line = Conversation([Verdict.PASS, Verdict.REJECT, Verdict.RECHECK])
    line.turn(100)
    line.settings.interval_s = 0.0
    line.turn(100)
    assert len(line.settled) == len(line.triggered) == line.ladder.counts.triggered > 15
    assert line.handshake.idle
    assert line.handshake.fault == ""
    assert line.plc_good == len(line.of(Verdict.PASS))
    assert line.ladder.counts.reject_lane == len(line.settled) - line.plc_good
    assert line.ladder.counts.unconfirmed == 0
    assert all(inspection.timings_ms["handshake"] > 0 for inspection in line.settled.values())
    said = line.handshake.say(ready=True, busy=False, fault=False)
    assert said.part_id == said.trigger == len(line.triggered)
    assert [trigger.plc_part_id for trigger in line.triggered] == list(range(1, len(line.triggered) + 1))


def test_a_plc_that_was_never_heard_passes_nothing_and_is_told_not_ready() -> None:
    line = Conversation()
    line.connected = False
    line.part(False)
    line.turn(5)
    assert line.of(Verdict.NOT_INSPECTED)[0].reason is Reason.PLC_LOST
    assert not line.handshake.say(ready=True, busy=False, fault=False).ready
    line.connected = True
    line.turn(20)
    assert line.handshake.say(ready=True, busy=False, fault=False).ready


def test_a_frozen_heartbeat_is_a_lost_plc_although_it_answers() -> None:
    line = Conversation()
    line.turn(30)
    passed = len(line.of(Verdict.PASS))
    line.turn(25, runs=False)
    assert "stands still for 200 ms" in line.handshake.fault
    line.part(False)
    line.turn(1, runs=False)
    assert len(line.of(Verdict.PASS)) <= passed + 1
    assert Reason.PLC_LOST in line.reasons()
    line.turn(30)
    assert line.handshake.fault == "", "it comes back by itself"
    assert len(line.of(Verdict.PASS)) > passed + 1


def test_a_late_acknowledge_withdraws_the_part_and_ready_waits_for_it() -> None:
    line = Conversation()
    line.turn(30)
    line.settings.acknowledge_s = 0.3
    line.turn(30)
    assert "not acknowledged within 100 ms" in line.handshake.fault
    assert not line.handshake.say(ready=True, busy=False, fault=False).ready
    assert line.reasons() >= {Reason.NOT_ACKNOWLEDGED}
    line.settings.acknowledge_s = 0.0
    line.turn(60)
    assert line.handshake.fault == ""
    good = len(line.of(Verdict.PASS))
    line.settings.interval_s = 0.0
    line.turn(80)
    assert line.plc_good <= good == len(line.of(Verdict.PASS))
    assert line.ladder.counts.unconfirmed >= 1


def test_a_verdict_other_than_pass_keeps_its_reason_when_the_plc_is_lost() -> None:
    line = Conversation([Verdict.REJECT])
    line.turn(30)
    line.connected = False
    line.part(False)
    line.turn(2)
    assert {inspection.verdict for inspection in line.settled.values()} == {Verdict.REJECT}


def test_parts_that_went_by_during_an_outage_are_counted_and_none_is_inspected() -> None:
    line = Conversation()
    line.turn(30)
    line.connected = False
    before = line.ladder.counts.triggered
    line.turn(15)  # the PLC has not noticed yet, and goes on triggering
    during = line.ladder.counts.triggered - before
    line.connected = True
    line.turn(20)
    assert len(line.missed) == during > 1
    assert len(line.triggered) == line.ladder.counts.triggered


def test_a_restarted_plc_is_another_plc_and_none_of_its_numbers_is_mistaken() -> None:
    line = Conversation()
    line.turn(100)
    count = len(line.triggered)
    line.restart_plc()
    line.turn(100)
    assert line.handshake.fault == ""
    assert len(line.triggered) - count == line.ladder.counts.triggered > 5
    line.settings.interval_s = 0.0
    line.turn(80)
    assert len(line.settled) == len(line.triggered)


@settings(deadline=None)
@given(st.lists(st.builds(PlcSignals, *[st.integers(0, 65_535)] * 7), max_size=30))
def test_garbage_in_the_registers_passes_nothing_by_chance_and_invents_few_parts(
    garbage: list[PlcSignals],
) -> None:
    line = Conversation(interval_s=0.0)
    line.turn(10)
    for signals in garbage:
        before = len(line.triggered)
        line.turn(1, garbage=replace(signals, session=1))
        assert len(line.triggered) - before <= MAX_MISSED_TRIGGERS
    line.turn(60)
    assert line.plc_good == 0
    line.settings.acknowledge_s = 0.0
    line.turn(60)
    line.handshake.close()
    assert len(line.settled) == len(line.triggered)


FAULT = st.sampled_from(["none", "none", "none", "cable", "stop", "restart", "slow", "dead", "gate"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(FAULT, st.integers(1, 60)), max_size=12),
    st.lists(st.sampled_from(Verdict), min_size=1, max_size=5),
)
def test_the_good_lane_takes_nothing_that_the_ledger_has_not_passed(
    faults: list[tuple[str, int]], verdicts: list[Verdict]
) -> None:
    line = Conversation(verdicts)
    line.turn(10)
    for fault, turns in faults:
        line.connected = fault != "cable"
        line.at_gate = fault == "gate"
        line.settings.acknowledge_s = {"slow": 0.15, "dead": float("inf")}.get(fault, 0.0)
        if fault == "restart":
            line.restart_plc()
        for _ in range(turns):
            line.turn(runs=fault != "stop")
            assert line.plc_good <= len(line.of(Verdict.PASS))
    line.connected, line.settings.acknowledge_s, line.at_gate = True, 0.0, False
    line.turn(100)
    assert line.handshake.fault == "", "whatever broke, it comes back by itself"
    passed = len(line.of(Verdict.PASS))
    line.turn(40)
    assert (len(line.of(Verdict.PASS)) > passed) == (Verdict.PASS in verdicts)
    line.settings.interval_s = 0.0
    line.turn(120)
    assert line.handshake.idle
    assert len(line.settled) == len(line.triggered)
    assert line.plc_good <= len(line.of(Verdict.PASS))


def test_what_is_offered_behind_the_end_is_withdrawn_at_once() -> None:
    line = Conversation()
    line.turn(20)
    line.handshake.close()
    line.part(False)
    assert line.settled[len(line.triggered)].reason is Reason.STOPPED


@pytest.mark.parametrize(("ago_ms", "reason"), [(2000, Reason.DEADLINE), (0, Reason.BELOW_LIMIT)])
def test_a_pass_that_waited_too_long_is_withdrawn(ago_ms: int, reason: Reason) -> None:
    line = Conversation(interval_s=0.0)
    line.turn(10)
    trigger = Trigger(1, "CAM 1", line.now_ns - ago_ms * MS, 0)
    line.handshake.offer(
        Inspection(trigger, None, None, Verdict.PASS, Reason.BELOW_LIMIT, "", None, "", line.now_ns)
    )
    line.turn(5)
    assert line.settled[1].reason is reason


class Script:
    """A handshake whose PLC says exactly what is written."""

    def __init__(self) -> None:
        self.settled: list[Inspection] = []
        self.now_ns = 10**12
        self.beats = itertools.count()
        self.handshake = Handshake(
            ModbusPlcConfig(host="plc", acknowledge_ms=100), 77, 1000.0, self.settle, None
        )

    def settle(self, inspection: Inspection) -> Inspection:
        self.settled.append(inspection)
        return inspection

    def hear(self, after_ms: int = 10, **signals: int) -> StationSignals:
        self.now_ns += after_ms * MS
        self.handshake.step(PlcSignals(heartbeat=next(self.beats), **signals), self.now_ns)
        return self.handshake.say(ready=True, busy=False, fault=False)

    def offer(self) -> None:
        trigger = Trigger(1, "CAM 1", self.now_ns, 0)
        self.handshake.offer(
            Inspection(trigger, None, None, Verdict.PASS, Reason.BELOW_LIMIT, "", None, "", self.now_ns)
        )


def test_what_an_earlier_conversation_left_behind_acknowledges_nothing() -> None:
    for left in (0, 1, 65_535):
        script = Script()
        for _ in range(3):
            script.hear(session=5, acknowledge=left)
        script.offer()
        said = script.hear(session=5, acknowledge=left)
        assert said.valid
        assert said.result not in (0, left)
        script.hear(session=5, acknowledge=left)
        assert script.settled == []
        assert script.hear(session=5, acknowledge=said.result).confirmed == said.result
        assert [inspection.verdict for inspection in script.settled] == [Verdict.PASS]


def test_a_restarted_plc_cannot_acknowledge_what_another_was_offered() -> None:
    script = Script()
    for _ in range(3):
        script.hear(session=5)
    script.offer()
    said = script.hear(session=5)
    assert script.hear(session=6, acknowledge=said.result).valid is False
    (inspection,) = script.settled
    assert (inspection.reason, inspection.detail) == (Reason.PLC_LOST, "the PLC was restarted")


def test_an_acknowledge_that_is_late_when_it_is_read_is_late() -> None:
    script = Script()
    for _ in range(3):
        script.hear(session=5)
    script.offer()
    said = script.hear(session=5)
    after = script.hear(150, session=5, acknowledge=said.result)
    assert after.confirmed != said.result
    assert after.ready, "it has come, so the next part may"
    assert [inspection.reason for inspection in script.settled] == [Reason.NOT_ACKNOWLEDGED]
