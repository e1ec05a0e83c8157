"""The PLC's registers hold anything, in any order, and come and go: what the station may never make of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drivers.config import ModbusPlcConfig
from drivers.errors import PlcError
from drivers.plc import PlcSignals, StationSignals, decode_plc, decode_station, encode_plc, encode_station
from drivers.types import Trigger
from station.handshake import MAX_MISSED_TRIGGERS, Handshake
from station.types import Inspection, Reason, Verdict
from tests.fuzzing import bounded, examples, is_one_line

pytestmark = pytest.mark.fuzz

MS = 1_000_000
WORD = st.integers(0, 65_535) | st.sampled_from((0, 1, 0x5601, 0x0156, 65_534, 65_535))
HEARTBEAT_MS, ACKNOWLEDGE_MS, DEADLINE_MS = 200, 100, 1000


@examples(150)
@given(registers=st.lists(st.integers(-(2**33), 2**33) | WORD, max_size=14) | st.lists(WORD, max_size=14))
@example(registers=[])
@example(registers=[0x5601])
@example(registers=[0x5601] + [65_535] * 9)
@example(registers=[0x5601] + [65_535] * 10)
def test_registers(registers: list[int]) -> None:
    for decode in (decode_plc, decode_station):
        with bounded():
            try:
                signals = decode(registers)
            except PlcError as error:
                assert is_one_line(error)
                continue
        assert isinstance(signals, PlcSignals | StationSignals)


class Registers(RuleBasedStateMachine):
    """A PLC that was written by nobody, and what the station makes of it.

    A PASS may stand only where the PLC holds the number of the result that it was offered, in the same
    session and in time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 10**12
        self.plc = PlcSignals()
        self.said = self.written = StationSignals()  # the last, and the last that arrived
        self.session: int | None = None  # of the PLC that hands were last shaken with
        self.triggered = 0
        self.offered: list[Inspection] = []
        self.settled: dict[int, Inspection] = {}
        self.closed = False
        self.offered_ns: dict[int, int] = {}
        self.handshake = Handshake(
            ModbusPlcConfig(host="plc", heartbeat_ms=HEARTBEAT_MS, acknowledge_ms=ACKNOWLEDGE_MS),
            77,
            DEADLINE_MS,
            self.settle,
            self.part,
        )

    def settle(self, inspection: Inspection) -> Inspection:
        part_seq = inspection.trigger.part_seq
        assert part_seq not in self.settled, "one verdict a part"
        original = self.offered[part_seq - 1].verdict
        assert inspection.verdict in (original, Verdict.NOT_INSPECTED), "no verdict becomes another"
        assert original is Verdict.PASS or inspection.verdict is original
        self.settled[part_seq] = inspection
        return inspection

    def part(self, missed: bool, part_id: int | None) -> Trigger | None:
        self.triggered += 1
        verdict = (Verdict.PASS, Verdict.PASS, Verdict.REJECT)[self.triggered % 3]
        return self.judge(Verdict.NOT_INSPECTED if missed else verdict)

    def judge(self, verdict: Verdict) -> Trigger:
        trigger = Trigger(len(self.offered) + 1, "CAM 1", self.now_ns, self.now_ns)
        inspection = Inspection(
            trigger, None, None, verdict, Reason.BELOW_LIMIT, "", None, "", self.now_ns, {"detect": 1.0}
        )
        self.offered.append(inspection)
        self.handshake.offer(inspection)
        return trigger

    def exchange(self, heard: PlcSignals | str) -> None:
        """One turn of the stage, and what must hold of it."""
        before, plc_before = dict(self.settled), self.plc
        triggered, said, spoken = self.triggered, self.written, self.said
        self.handshake.step(heard, self.now_ns)
        new = [self.settled[part] for part in self.settled.keys() - before.keys()]
        passed = [inspection for inspection in new if inspection.verdict is Verdict.PASS]
        if isinstance(heard, str):
            assert passed == []
            assert self.handshake.fault == heard
            assert self.triggered == triggered
        else:
            if passed:
                assert len(passed) == 1
                assert said.valid
                assert said.verdict == 1
                assert heard.acknowledge == said.result, "a PASS that was not acknowledged"
                assert heard.session == plc_before.session
                assert self.now_ns - self.offered_ns[said.result] <= ACKNOWLEDGE_MS * MS
            assert self.triggered - triggered <= MAX_MISSED_TRIGGERS
            self.plc = heard
        now = self.said = self.handshake.say(ready=True, busy=False, fault=False)
        if now.valid and (now.result != spoken.result or not spoken.valid):
            self.offered_ns[now.result] = self.now_ns
        shaken = not isinstance(heard, str) and self.handshake.encoder is not None
        if now.confirmed != spoken.confirmed and shaken and self.plc.session == self.session:
            assert now.confirmed == spoken.result == self.plc.acknowledge
            assert spoken.valid
        if shaken:
            self.session = self.plc.session
        assert now.ready == (not self.handshake.fault)
        assert decode_station(encode_station(now)) == now, "every number fits its register"
        if not isinstance(heard, str):
            self.written = now  # a PLC that is not reached does not hear either

    @initialize()
    def greet(self) -> None:
        """Nearly always the PLC is a PLC at first; without this, hardly any number would ever fit."""
        for _ in range(3):
            self.beat()

    @rule(ms=st.integers(0, 60) | st.sampled_from((99, 100, 101, 199, 200, 201, 1000, 1001)))
    def wait(self, ms: int) -> None:
        self.now_ns += ms * MS

    @rule()
    def beat(self) -> None:
        self.now_ns += 10 * MS
        self.exchange(replace(self.plc, heartbeat=(self.plc.heartbeat + 1) % 65_536))

    @rule(steps=st.integers(1, 3))
    def trigger(self, steps: int) -> None:
        number = (self.plc.trigger + steps - 1) % 65_535 + 1
        heartbeat = (self.plc.heartbeat + 1) % 65_536
        self.exchange(replace(self.plc, heartbeat=heartbeat, trigger=number))

    @rule(off_by=st.sampled_from((0, 0, 0, 1, -1)), beats=st.booleans())
    def acknowledge(self, off_by: int, beats: bool) -> None:
        heartbeat = (self.plc.heartbeat + beats) % 65_536
        self.exchange(
            replace(self.plc, heartbeat=heartbeat, acknowledge=(self.written.result + off_by) % 65_536)
        )

    @rule(
        changes=st.dictionaries(
            st.sampled_from(
                ("session", "heartbeat", "trigger", "acknowledge", "encoder", "rejected", "part_id")
            ),
            WORD,
            min_size=1,
        )
    )
    def say_anything(self, changes: dict[str, int]) -> None:
        self.exchange(replace(self.plc, **changes))

    @rule(registers=st.lists(WORD, max_size=12), position=st.integers(0, 10), word=WORD)
    def hold_anything(self, registers: list[int], position: int, word: int) -> None:
        """As the driver reads it: other registers, or its own with one word changed."""
        own = encode_plc(self.plc)
        own[position % len(own)] = word
        for held in (registers, own):
            try:
                heard: PlcSignals | str = decode_plc(held)
            except PlcError as error:
                heard = str(error)
            self.exchange(heard)

    @rule(why=st.sampled_from(("cable out", "no usable answer")))
    def vanish(self, why: str) -> None:
        self.exchange(why)

    @rule()
    def hear_nothing(self) -> None:
        """It can be read, and what it is told does not arrive."""
        written = self.written
        self.beat()
        self.exchange("writing registers: no usable answer")
        self.written = written

    @precondition(lambda self: not self.closed)
    @rule(verdict=st.sampled_from(Verdict))
    def judge_a_part(self, verdict: Verdict) -> None:
        self.judge(verdict)

    @precondition(lambda self: not self.closed and len(self.offered) > 20)
    @rule()
    def close(self) -> None:
        self.closed = True
        self.handshake.close()
        assert self.handshake.idle

    @invariant()
    def what_was_not_settled_waits(self) -> None:
        assert self.handshake.idle == (len(self.settled) == len(self.offered))

    def teardown(self) -> None:
        self.handshake.close()
        assert len(self.settled) == len(self.offered), "every part has its verdict"


TestRegisters = Registers.TestCase
TestRegisters.settings = settings(examples(40), stateful_step_count=30, deadline=None)
