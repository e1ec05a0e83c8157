import time
from collections.abc import Callable

from line_runs import wait_until

from drivers.errors import OutputError
from drivers.outputs import SimulatedOutput
from drivers.types import Trigger
from station.actuation import ActuationStage
from station.sections import OutputsSection


def trigger(number: int, ago_ms: float = 0.0) -> Trigger:
    return Trigger(number, "CAM 1", time.perf_counter_ns() - round(ago_ms * 1e6), time.time_ns())


class Said:
    def __init__(self) -> None:
        self.gate: list[tuple[str, str]] = []
        self.unconfirmed: list[int] = []


def stage(gate: SimulatedOutput, said: Said, **outputs: object) -> ActuationStage:
    config = OutputsSection.model_validate({"reject_delay_ms": 60.0, "stroke_ms": 20.0, **outputs})

    def failed(stage: object) -> None:
        said.gate.append(("failed", ""))

    def on_gate(state: str, text: str) -> None:
        said.gate.append((state, text))

    return ActuationStage(gate, config, on_gate, said.unconfirmed.append, failed)


def stopped(actuation: ActuationStage) -> None:
    actuation.stop()
    actuation.join(20)
    assert not actuation.is_alive()
    assert actuation.error is None


def test_a_gate_that_opens_the_good_lane_opens_for_claimed_parts_only(no_leaks: None) -> None:
    gate, said = SimulatedOutput(), Said()
    actuation = stage(gate, said)
    actuation.start()
    parts = [trigger(number) for number in range(5)]
    for part in parts:
        actuation.expect(part)
    assert actuation.claim(0)
    assert actuation.claim(3)
    assert not actuation.claim(99), "nobody knows this part"
    stopped(actuation)
    assert gate.count == 2
    assert actuation.rejected == 3
    assert min(gate.on_ns) >= parts[0].triggered_ns + 60_000_000
    assert said.gate == [("ok", "ready")]


def test_an_ejector_fires_for_every_part_that_was_not_claimed(no_leaks: None) -> None:
    gate = SimulatedOutput()
    actuation = stage(gate, Said(), gate_acts_on="reject")
    actuation.start()
    for number in range(5):
        actuation.expect(trigger(number))
    assert actuation.claim(0)
    stopped(actuation)
    assert gate.count == actuation.rejected == 4


def test_a_claim_behind_the_gate_is_refused() -> None:
    gate = SimulatedOutput()
    actuation = stage(gate, Said())
    actuation.start()
    actuation.expect(trigger(1, ago_ms=100))
    wait_until(lambda: actuation.rejected == 1)
    assert not actuation.claim(1)
    stopped(actuation)
    assert gate.count == 0


def test_a_stroke_ends_by_itself_and_a_bad_part_ends_it_early() -> None:
    class Remembering(SimulatedOutput):
        def __init__(self) -> None:
            super().__init__()
            self.writes: list[tuple[float, bool]] = []

        def write(self, on: bool) -> None:
            super().write(on)
            self.writes.append((time.perf_counter(), on))

    gate = Remembering()
    actuation = stage(gate, Said(), stroke_ms=200.0, reject_delay_ms=100.0)
    actuation.start()
    good, bad, last = trigger(1), trigger(2, ago_ms=-50), trigger(3, ago_ms=-300)
    for part in (good, bad, last):
        actuation.expect(part)
    assert actuation.claim(1)
    assert actuation.claim(3)
    stopped(actuation)
    assert [on for _, on in gate.writes] == [True, False, True, False]
    open_s = [gate.writes[index + 1][0] - gate.writes[index][0] for index in (0, 2)]
    assert open_s[0] < 0.15, "the bad part behind it must not slip through"
    assert open_s[1] >= 0.2


def test_a_gate_that_does_not_move_is_a_fault_tried_again_and_the_stage_goes_on() -> None:
    class Stuck(SimulatedOutput):
        stuck = True

        def write(self, on: bool) -> None:
            if self.stuck:
                raise OutputError("gate 1: no answer; check its supply")
            super().write(on)

    said, gate = Said(), Stuck()
    actuation = stage(gate, said, gate_acts_on="reject")
    actuation.start()
    actuation.expect(trigger(1, ago_ms=100))
    wait_until(lambda: len(said.gate) > 1)
    fault = ("fault", "part 1 was not sent to the reject lane: gate 1: no answer; check its supply")
    assert said.gate[:2] == [("ok", "ready"), fault]
    assert actuation.rejected == 0
    gate.stuck = False
    wait_until(lambda: said.gate[-1] == ("ok", "ready"))
    stopped(actuation)


def belt(actuation: ActuationStage) -> Callable[[int | None], None]:
    """Tells the belt's position and waits until the stage has acted on it."""

    def at(count: int | None) -> None:
        actuation.plc_read(count, 0)
        time.sleep(0.03)

    return at


def test_by_encoder_nothing_passes_until_the_belt_is_known_and_a_jump_rejects_all(no_leaks: None) -> None:
    gate, said = SimulatedOutput(), Said()
    actuation = stage(gate, said, tracking="encoder", reject_counts=100, gate_acts_on="reject")
    actuation.start()
    at = belt(actuation)
    wait_until(lambda: gate.is_on)  # nobody knows what is on the belt: everything is rejected
    actuation.expect(trigger(1))
    assert not actuation.claim(1), "triggered before the encoder was read"
    at(4_294_967_200)
    actuation.expect(trigger(2))
    assert actuation.claim(2)
    at(4_294_967_290)
    assert gate.is_on
    at(14)  # over the counter's end: 110 counts on
    assert not gate.is_on
    assert actuation.rejected == 0, "part 2 passed"
    actuation.expect(trigger(3))
    actuation.expect(trigger(4))
    assert actuation.claim(3)
    at(50)
    assert not gate.is_on
    at(None)  # the PLC is lost, with it every place
    assert gate.is_on
    assert not actuation.claim(4)
    at(60)
    at(150)
    assert gate.is_on
    at(161)
    assert not gate.is_on
    at(5_000_000)
    assert gate.is_on, "a jump is no movement"
    stopped(actuation)
    assert not gate.is_on


def test_a_reject_that_nobody_has_seen_leaving_is_told() -> None:
    said = Said()
    actuation = stage(SimulatedOutput(), said, reject_confirm_ms=50.0)
    actuation.start()
    for number in range(2):
        actuation.expect(trigger(number, ago_ms=100))
    wait_until(lambda: actuation.rejected == 2)
    actuation.plc_read(None, 1)
    wait_until(lambda: bool(said.unconfirmed))
    stopped(actuation)
    assert said.unconfirmed == [1]
