import time

from drivers.errors import OutputError
from drivers.outputs import SimulatedGate
from drivers.types import Trigger
from station.actuation import ActuationStage
from station.types import Inspection, Reason, Verdict


def trigger(number: int, ago_ms: float = 0.0) -> Trigger:
    return Trigger(number, "CAM 1", time.perf_counter_ns() - round(ago_ms * 1e6), time.time_ns())


def decided(part: Trigger, verdict: Verdict) -> Inspection:
    return Inspection(part, None, None, verdict, Reason.BELOW_LIMIT, "", None, "", time.perf_counter_ns())


def stage(gate: SimulatedGate, said: list[tuple[str, str]]) -> ActuationStage:
    def failed(stage: object) -> None:
        said.append(("failed", ""))

    return ActuationStage(gate, 60.0, lambda state, text: said.append((state, text)), failed)


def test_every_part_that_has_not_passed_is_rejected_at_its_time(no_leaks: None) -> None:
    gate, said = SimulatedGate(), []
    actuation = stage(gate, said)
    actuation.start()
    parts = [trigger(number) for number in range(5)]
    for part in parts:
        actuation.expect(part)
    actuation.decided(decided(parts[0], Verdict.PASS))
    actuation.decided(decided(parts[1], Verdict.REJECT))
    actuation.decided(decided(parts[2], Verdict.RECHECK))
    actuation.decided(decided(parts[3], Verdict.NOT_INSPECTED))
    actuation.stop()  # part 4 never gets a verdict: it is rejected all the same, in its time
    actuation.join(10)
    assert actuation.fired == len(gate.fired_ns) == 4
    assert min(gate.fired_ns) >= parts[0].triggered_ns + 60_000_000
    assert said == [("ok", "ready")]


def test_a_verdict_after_the_gate_changes_nothing() -> None:
    gate, said = SimulatedGate(), []
    actuation = stage(gate, said)
    actuation.start()
    late = trigger(1, ago_ms=100)
    actuation.expect(late)
    give_up_s = time.monotonic() + 10
    while not actuation.fired and time.monotonic() < give_up_s:
        time.sleep(0.005)
    actuation.decided(decided(late, Verdict.PASS))
    actuation.stop()
    actuation.join(10)
    assert actuation.fired == 1


def test_a_gate_that_does_not_move_is_a_fault_and_the_line_goes_on() -> None:
    class Stuck(SimulatedGate):
        def fire(self) -> None:
            raise OutputError("gate 1: no answer; check its supply")

    said: list[tuple[str, str]] = []
    actuation = stage(Stuck(), said)
    actuation.start()
    for number in range(2):
        actuation.expect(trigger(number, ago_ms=100))
    actuation.stop()
    actuation.join(10)
    assert actuation.error is None
    assert actuation.fired == 0
    assert said.count(("fault", "gate 1: no answer; check its supply")) == 2
