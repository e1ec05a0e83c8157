import threading
import time

import pytest

from drivers.config import NoGateConfig, SimulatedGateConfig
from drivers.errors import OutputError
from drivers.outputs import REMEMBERED_FIRINGS, NoGate, SimulatedGate, create_gate


def test_the_gate_follows_its_configuration() -> None:
    assert isinstance(create_gate(SimulatedGateConfig()), SimulatedGate)
    assert isinstance(create_gate(NoGateConfig()), NoGate)


def test_each_firing_is_remembered_with_its_time() -> None:
    gate = SimulatedGate()
    gate.open()
    times_ns = []
    for _ in range(3):
        times_ns += [time.perf_counter_ns()]
        gate.fire()
    times_ns += [time.perf_counter_ns()]
    gate.close()
    assert gate.count == 3
    assert all(a <= fired <= b for a, fired, b in zip(times_ns, gate.fired_ns, times_ns[1:], strict=False))


def test_a_closed_gate_refuses_to_fire_and_says_the_part_was_not_rejected() -> None:
    gate = SimulatedGate()
    with pytest.raises(OutputError, match="not rejected; open it first"):
        gate.fire()
    gate.open()
    gate.fire()
    gate.close()
    gate.close()
    with pytest.raises(OutputError):
        gate.fire()
    assert gate.count == 1


def test_the_memory_is_bounded_and_the_count_is_not() -> None:
    gate = SimulatedGate()
    gate.open()
    for _ in range(REMEMBERED_FIRINGS + 5):
        gate.fire()
    assert gate.count == REMEMBERED_FIRINGS + 5
    assert len(gate.fired_ns) == REMEMBERED_FIRINGS
    assert list(gate.fired_ns) == sorted(gate.fired_ns)


def test_firings_from_several_threads_are_all_counted() -> None:
    gate = SimulatedGate()
    gate.open()
    threads = [threading.Thread(target=lambda: [gate.fire() for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gate.count == 400


def test_no_gate_takes_every_call() -> None:
    gate = NoGate()
    gate.open()
    gate.fire()
    gate.close()
