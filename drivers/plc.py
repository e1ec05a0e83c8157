"""The handshake with a PLC: what each side says, and in which register.

Sequence numbers, not level bits: a signal that is seen late, twice or not at all shows. They run from 1 to
65535 and start again at 1; 0 means none yet. Numbers of two registers have their high word first. Offsets are
from `read_address` and `write_address`.

    PLC says                               station says
    0    0x5601: this map                  0    0x5601: this map
    1    session, another at each start    1    session, another at each start
    2    heartbeat, changes always         2    heartbeat, changes always
    3    trigger: number of the last part  3    bit 0 READY, 1 BUSY, 2 VALID, 3 FAULT
    4-5  part id of that part              4    trigger taken
    6    acknowledge: last result taken    5    result: number of the last one offered
    7-8  encoder, counts                   6    verdict: 1 PASS, 2 RECHECK, 3 REJECT, 4 NOT INSPECTED
    9    rejected: parts seen leaving      7-8  part id of that result
                                           9    trigger of that result, 0 where the PLC does not trigger
                                           10   confirmed: last result both sides know of

Only a PASS whose number stands in `confirmed` may open the good lane, and only while the station's heartbeat
changes. A result is offered (VALID), acknowledged, confirmed. What is never confirmed is withdrawn: no PASS.
Under another session of the station every part on the way is rejected, confirmed or not: the station may have
been killed before it recorded them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from drivers.config import ModbusPlcConfig, NoPlcConfig, PlcConfig
from drivers.errors import PlcError

MAP = 0x5601
PLC_REGISTERS = 10
STATION_REGISTERS = 11
_LAST_NUMBER = 65_535


class VerdictCode(IntEnum):
    """What the register of a verdict holds; 0 = none yet."""

    PASS = 1
    RECHECK = 2
    REJECT = 3
    NOT_INSPECTED = 4


@dataclass(frozen=True, slots=True)
class PlcSignals:
    """What the PLC says; see the module's docstring."""

    session: int = 0
    heartbeat: int = 0
    trigger: int = 0
    part_id: int = 0
    acknowledge: int = 0
    encoder: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class StationSignals:
    """What the station says; see the module's docstring."""

    session: int = 0
    heartbeat: int = 0
    ready: bool = False
    busy: bool = False
    valid: bool = False
    fault: bool = False
    trigger_taken: int = 0
    result: int = 0
    verdict: int = 0
    part_id: int = 0
    trigger: int = 0
    confirmed: int = 0


class Plc(Protocol):
    """A PLC that shakes hands. One thread is the only caller; a call after a failure reaches for it anew."""

    def read(self) -> PlcSignals:
        """All that the PLC says at one moment. Blocks for a bounded time.

        Raises:
            PlcError: it does not answer, or its registers do not hold the handshake.
        """
        ...

    def write(self, signals: StationSignals) -> None:
        """All that the station says, at once. Blocks for a bounded time.

        Raises:
            PlcError: it does not answer, or refuses.
        """
        ...

    def close(self) -> None:
        """Let go of it. Never raises; any number of times."""
        ...


def create_plc(config: PlcConfig) -> Plc | None:
    """The PLC for its configuration, or None. pymodbus is imported only for `ModbusPlcConfig`."""
    match config:
        case NoPlcConfig():
            return None
        case ModbusPlcConfig():
            from drivers.modbus import ModbusPlc

            return ModbusPlc(config)


def next_number(number: int) -> int:
    """The sequence number behind `number`."""
    return number % _LAST_NUMBER + 1


def numbers_between(earlier: int, later: int) -> int:
    """How many steps of `next_number` lead from one number to the other, 0 to 65534."""
    return (later - earlier) % _LAST_NUMBER if earlier else later


def encode_plc(signals: PlcSignals) -> list[int]:
    """The PLC's registers."""
    return [
        MAP,
        signals.session,
        signals.heartbeat,
        signals.trigger,
        *_words(signals.part_id),
        signals.acknowledge,
        *_words(signals.encoder),
        signals.rejected,
    ]


def decode_plc(registers: Sequence[int]) -> PlcSignals:
    """The PLC's signals.

    Raises:
        PlcError: these registers hold something else.
    """
    _check_map(registers, PLC_REGISTERS, "read_address")
    _, session, heartbeat, trigger, part_high, part_low, acknowledge, encoder_high, encoder_low, rejected = (
        registers
    )
    return PlcSignals(
        session=session,
        heartbeat=heartbeat,
        trigger=trigger,
        part_id=part_high << 16 | part_low,
        acknowledge=acknowledge,
        encoder=encoder_high << 16 | encoder_low,
        rejected=rejected,
    )


def encode_station(signals: StationSignals) -> list[int]:
    """The station's registers."""
    bits = (signals.ready, signals.busy, signals.valid, signals.fault)
    return [
        MAP,
        signals.session,
        signals.heartbeat,
        sum(on << bit for bit, on in enumerate(bits)),
        signals.trigger_taken,
        signals.result,
        signals.verdict,
        *_words(signals.part_id),
        signals.trigger,
        signals.confirmed,
    ]


def decode_station(registers: Sequence[int]) -> StationSignals:
    """The station's signals.

    Raises:
        PlcError: these registers hold something else; before the station has first written, they do.
    """
    _check_map(registers, STATION_REGISTERS, "write_address")
    _, session, heartbeat, bits, taken, result, verdict, part_high, part_low, trigger, confirmed = registers
    ready, busy, valid, fault = (bool(bits >> bit & 1) for bit in range(4))
    return StationSignals(
        session=session,
        heartbeat=heartbeat,
        ready=ready,
        busy=busy,
        valid=valid,
        fault=fault,
        trigger_taken=taken,
        result=result,
        verdict=verdict,
        part_id=part_high << 16 | part_low,
        trigger=trigger,
        confirmed=confirmed,
    )


def _words(number: int) -> tuple[int, int]:
    return number >> 16 & 0xFFFF, number & 0xFFFF


def _check_map(registers: Sequence[int], count: int, address_key: str) -> None:
    if len(registers) != count or registers[0] != MAP:
        found = f"{registers[0]:#06x}" if registers else "nothing"
        raise PlcError(
            f"the first register of the handshake holds {found}, {MAP:#06x} expected; "
            f"check {address_key} and the PLC's program"
        )
