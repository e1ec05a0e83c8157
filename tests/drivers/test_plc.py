"""The register map, the simulated PLC's program, and both over a real Modbus TCP server."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.config import ModbusPlcConfig, NoPlcConfig
from drivers.errors import PlcError
from drivers.ladder import Ladder, LadderSettings
from drivers.modbus import ModbusPlc
from drivers.plc import (
    PLC_REGISTERS,
    STATION_REGISTERS,
    PlcSignals,
    StationSignals,
    create_plc,
    decode_plc,
    decode_station,
    encode_plc,
    encode_station,
    next_number,
    numbers_between,
)
from drivers.plc_simulator import PlcSimulator

WORD = st.integers(0, 65_535)
DOUBLE = st.integers(0, 2**32 - 1)
NUMBER = st.integers(1, 65_535)
PLC_SIGNALS = st.builds(PlcSignals, WORD, WORD, WORD, DOUBLE, WORD, DOUBLE, WORD)
STATION_SIGNALS = st.builds(
    StationSignals, WORD, WORD, *[st.booleans()] * 4, WORD, WORD, WORD, DOUBLE, WORD, WORD
)


@given(PLC_SIGNALS, STATION_SIGNALS)
def test_signals_come_back_from_their_registers(plc: PlcSignals, station: StationSignals) -> None:
    assert decode_plc(encode_plc(plc)) == plc
    assert decode_station(encode_station(station)) == station
    assert len(encode_plc(plc)) == PLC_REGISTERS
    assert len(encode_station(station)) == STATION_REGISTERS
    assert all(0 <= word <= 65_535 for word in encode_plc(plc) + encode_station(station))


@given(st.lists(WORD, max_size=20))
def test_other_registers_are_no_handshake(registers: list[int]) -> None:
    for decode in (decode_plc, decode_station):
        try:
            decode(registers)
        except PlcError as error:
            assert "0x5601 expected" in str(error)
        else:
            assert registers[0] == 0x5601


@given(NUMBER, st.integers(0, 300))
def test_numbers_count_steps_over_their_end(number: int, steps: int) -> None:
    later = number
    for _ in range(steps):
        later = next_number(later)
        assert later != 0
    assert numbers_between(number, later) == steps


class Line:
    """A ladder scanned every 10 ms, and a station that says what it is told to."""

    def __init__(self, settings: LadderSettings) -> None:
        self.ladder = Ladder(settings, 1)
        self.station = StationSignals(session=9)
        self.now_s = 0.0
        self.plc = PlcSignals()

    def run(self, seconds: float, *, beats: bool = True, **says: object) -> PlcSignals:
        self.station = replace(self.station, **says)  # type: ignore[arg-type]
        for _ in range(round(seconds * 100)):
            self.now_s += 0.01
            if beats:
                self.station = replace(self.station, heartbeat=self.station.heartbeat + 1)
            self.plc = self.ladder.scan(self.now_s, self.station)
        return self.plc


def test_the_ladder_opens_the_good_lane_for_a_confirmed_pass_only() -> None:
    line = Line(LadderSettings(interval_s=0, travel_s=1.0))
    line.run(0.1)
    for verdict, confirms in ((1, True), (1, False), (2, True), (3, True)):
        line.ladder.settings.interval_s = 2.0  # one part, then the time to sort it
        part = line.run(0.5, ready=True)
        result = line.station.result + 1
        plc = line.run(0.1, valid=True, result=result, verdict=verdict, trigger=part.trigger)
        assert plc.acknowledge == result
        line.run(1.4, valid=False, confirmed=result if confirms else line.station.confirmed)
    counts = line.ladder.counts
    assert (counts.good_lane, counts.reject_lane) == (1, 3)
    assert counts.triggered == 4
    assert line.plc.rejected == 3


def test_the_ladder_sees_the_station_die_and_rejects_what_was_confirmed() -> None:
    line = Line(LadderSettings(interval_s=9.0, travel_s=3.0, heartbeat_s=0.5))
    part = line.run(0.1, ready=True)
    line.run(0.1, valid=True, result=1, verdict=1, trigger=part.trigger)
    line.run(0.1, valid=False, confirmed=1)
    assert line.ladder.alive
    line.run(3.0, beats=False)
    counts = line.ladder.counts
    assert not line.ladder.alive
    assert (counts.heartbeat_losses, counts.good_lane, counts.reject_lane) == (1, 0, 1)
    line.run(0.1)
    assert line.ladder.alive


def test_another_station_session_has_every_part_on_the_way_rejected() -> None:
    sorted_parts: list[tuple[int, int, bool]] = []
    for session in (9, 10):  # of the station that is there when the part reaches the gate
        line = Line(LadderSettings(interval_s=9.0, travel_s=3.0, heartbeat_s=0.5))
        line.ladder = Ladder(line.ladder.settings, 1, lambda *part: sorted_parts.append(part))
        part = line.run(0.1, ready=True)
        line.run(0.1, valid=True, result=1, verdict=1, trigger=part.trigger)
        line.run(0.1, valid=False, confirmed=1)
        line.run(3.0, session=session, heartbeat=line.station.heartbeat)
        assert line.ladder.alive
    assert sorted_parts == [(1, 1, True), (1, 1, False)]


def test_the_ladder_counts_results_that_were_never_confirmed() -> None:
    line = Line(LadderSettings(interval_s=0, acknowledge_s=0.3))
    line.run(0.1)
    assert line.run(0.1, valid=True, result=1, verdict=1).acknowledge == 0
    assert line.run(0.3).acknowledge == 1, "late"
    line.run(0.1, result=2, verdict=4)
    assert line.ladder.counts.unconfirmed == 1
    assert line.ladder.counts.verdicts == {1: 1, 4: 1}


@pytest.fixture
def simulator() -> Iterator[PlcSimulator]:
    simulated = PlcSimulator(LadderSettings(interval_s=0))
    simulated.start()
    yield simulated
    simulated.stop()


def client(simulator: PlcSimulator) -> ModbusPlc:
    plc = create_plc(ModbusPlcConfig(host=simulator.host, port=simulator.port, timeout_ms=200))
    assert isinstance(plc, ModbusPlc)
    return plc


def read_until_heard(plc: ModbusPlc) -> PlcSignals:
    give_up_s = time.monotonic() + 5
    while True:
        try:
            return plc.read()
        except PlcError:
            assert time.monotonic() < give_up_s
            time.sleep(0.01)


def test_over_the_wire(simulator: PlcSimulator) -> None:
    plc = client(simulator)
    first = read_until_heard(plc)
    for heartbeat in range(20):
        plc.write(StationSignals(session=5, heartbeat=heartbeat, valid=True, result=7, verdict=3))
        time.sleep(0.01)
    second = plc.read()
    assert second.heartbeat != first.heartbeat
    assert second.acknowledge == 7
    plc.close()
    plc.close()


def test_every_way_to_lose_the_plc_is_one_error_within_the_timeout(simulator: PlcSimulator) -> None:
    plc = client(simulator)
    read_until_heard(plc)
    simulator.answering = False
    started_s = time.monotonic()
    with pytest.raises(PlcError, match="no usable answer within 200 ms"):
        plc.read()
    assert time.monotonic() - started_s < 2
    simulator.answering = True
    read_until_heard(plc)
    simulator.garbage = [0xDEAD] * PLC_REGISTERS
    time.sleep(0.1)
    with pytest.raises(PlcError, match="holds 0xdead, 0x5601 expected; check read_address"):
        plc.read()
    simulator.garbage = None
    session = read_until_heard(plc).session
    simulator.stop()
    with pytest.raises(PlcError):
        plc.write(StationSignals())
    with pytest.raises(PlcError):
        plc.read()
    simulator.start()
    assert read_until_heard(plc).session != session, "a restart shows"
    plc.close()


def test_a_name_that_nothing_has_is_told_as_such() -> None:
    plc = ModbusPlc(ModbusPlcConfig(driver="modbus", host="no-such-plc.invalid", timeout_ms=200.0))
    with pytest.raises(PlcError, match=r"no address for the name 'no-such-plc.invalid' .*correct `host`"):
        plc.read()
    plc.close()


def test_addresses_the_plc_does_not_have_are_refused(simulator: PlcSimulator) -> None:
    plc = ModbusPlc(ModbusPlcConfig(host=simulator.host, port=simulator.port, read_address=9000))
    with pytest.raises(PlcError, match="reading registers 9000 to 9009 refused"):
        plc.read()
    plc.close()


def test_a_port_that_is_taken_is_refused(simulator: PlcSimulator) -> None:
    second = PlcSimulator(LadderSettings(), port=simulator.port)
    with pytest.raises(PlcError, match="give another port"):
        second.start()


def test_no_plc() -> None:
    assert create_plc(NoPlcConfig()) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"host": ""}, "host must be"),
        ({"port": 0}, "port must be"),
        ({"unit": 256}, "unit must be"),
        ({"timeout_ms": 1}, "timeout_ms must be"),
        ({"read_address": -1}, "read_address must be"),
        ({"write_address": 5}, "write_address must be at least 16 registers away"),
        ({"cycle_ms": 0}, "cycle_ms must be"),
        ({"heartbeat_ms": 1}, "heartbeat_ms must be"),
        ({"acknowledge_ms": 1e9}, "acknowledge_ms must be"),
    ],
)
def test_values_out_of_bounds_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModbusPlcConfig(**({"host": "plc"} | wrong))  # type: ignore[arg-type]
