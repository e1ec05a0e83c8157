"""Modbus TCP through pymodbus, which only this file and the PLC simulator import.

What bites, and what is done about it:
- Retries and reconnects of the library hide for how long nothing was heard: there are none, a call either
  gets its answer within `timeout_ms` or fails.
- A late answer to an earlier request must not be taken for this one's: after any failure the connection is
  closed, and the next call opens a new one.
- Garbage on the wire raises whatever a decoder raises: everything it can is one error here.
"""

import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Sequence

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from drivers.config import ModbusOutputConfig, ModbusPlcConfig
from drivers.errors import DriverError, OutputError, PlcError
from drivers.plc import PLC_REGISTERS, PlcSignals, StationSignals, decode_plc, encode_station

logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # our own errors say what went wrong, once


class ModbusConnection:
    """One connection, opened when first needed. One thread is its only caller."""

    def __init__(self, host: str, port: int, unit: int, timeout_ms: float, error: type[DriverError]) -> None:
        """Nothing is opened yet.

        Args:
            host: name or address.
            port: TCP port.
            unit: device number.
            timeout_ms: longest wait for a connection or an answer, milliseconds.
            error: raised for whatever goes wrong.
        """
        self._name = f"Modbus {host}:{port} unit {unit}"
        self._host = host
        self._unit = unit
        self._timeout_ms = timeout_ms
        self._error = error
        self._client = ModbusTcpClient(host, port=port, timeout=timeout_ms / 1e3, retries=0)

    def read_registers(self, address: int, count: int) -> list[int]:
        """`count` holding registers from `address` on, each 0 to 65535."""
        answer = self._answer(
            lambda: self._client.read_holding_registers(address, count=count, device_id=self._unit),
            f"reading registers {address} to {address + count - 1}",
        )
        if len(answer.registers) != count:
            self.close()
            raise self._error(f"{self._name}: {count} registers asked for, {len(answer.registers)} came")
        return list(answer.registers)

    def write_registers(self, address: int, values: Sequence[int]) -> None:
        """Holding registers from `address` on, all in one request."""
        self._answer(
            lambda: self._client.write_registers(address, list(values), device_id=self._unit),
            f"writing registers {address} to {address + len(values) - 1}",
        )

    def write_coil(self, address: int, on: bool) -> None:
        """One coil."""
        self._answer(
            lambda: self._client.write_coil(address, on, device_id=self._unit), f"writing coil {address}"
        )

    def close(self) -> None:
        """Close the connection. Never raises."""
        self._client.close()  # type: ignore[no-untyped-call]

    def _answer(self, request: Callable[[], ModbusPDU], doing: str) -> ModbusPDU:
        try:
            if not self._client.connect():  # type: ignore[no-untyped-call]
                raise self._error(f"{self._name}: {self._why_no_connection()}")
            answer = request()
        except (ModbusException, OSError, struct.error, ValueError, IndexError) as error:
            self.close()
            raise self._error(
                f"{self._name}: {doing}: no usable answer within {self._timeout_ms:g} ms "
                f"({type(error).__name__})"
            ) from error
        if answer.isError():
            self.close()
            raise self._error(
                f"{self._name}: {doing} refused (exception {answer.exception_code}); check the addresses"
            )
        return answer

    def _why_no_connection(self) -> str:
        try:
            socket.getaddrinfo(self._host, None)
        except OSError as error:
            what = "correct `host`, or give the PLC's address where names are not served"
            return f"no address for the name {self._host!r} ({error.strerror}); {what}"
        return f"no connection within {self._timeout_ms:g} ms; check address and cable"


class ModbusOutput:
    """A coil; see `drivers.outputs.DigitalOutput`."""

    def __init__(self, config: ModbusOutputConfig) -> None:
        """Nothing is opened yet."""
        self._connection = ModbusConnection(
            config.host, config.port, config.unit, config.timeout_ms, OutputError
        )
        self._coil = config.coil
        self._is_open = False

    def open(self) -> None:
        """Connect and switch off; blocks at most two timeouts.

        Raises:
            OutputError: no connection, no answer, or refused.
        """
        self._connection.write_coil(self._coil, False)
        self._is_open = True

    def write(self, on: bool) -> None:
        """Switch; blocks at most two timeouts. Connects anew after a failure.

        Raises:
            OutputError: not open, no connection, no answer, or refused.
        """
        if not self._is_open:
            raise OutputError(f"coil {self._coil}: closed, it was not switched; open it first")
        self._connection.write_coil(self._coil, on)

    def close(self) -> None:
        """Switch off, if it can be reached, and disconnect."""
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(OutputError):  # unreachable: nothing more can be done from here
                self._connection.write_coil(self._coil, False)
        self._connection.close()


class ModbusPlc:
    """The handshake's registers in a PLC; see `drivers.plc.Plc`."""

    def __init__(self, config: ModbusPlcConfig) -> None:
        """Nothing is opened yet."""
        self._connection = ModbusConnection(
            config.host, config.port, config.unit, config.timeout_ms, PlcError
        )
        self._read_address = config.read_address
        self._write_address = config.write_address

    def read(self) -> PlcSignals:
        """All that the PLC says, in one request; blocks at most two timeouts.

        Raises:
            PlcError: no connection, no answer, refused, or not the handshake's registers.
        """
        return decode_plc(self._connection.read_registers(self._read_address, PLC_REGISTERS))

    def write(self, signals: StationSignals) -> None:
        """All that the station says, in one request; blocks at most two timeouts.

        Raises:
            PlcError: no connection, no answer, or refused.
        """
        self._connection.write_registers(self._write_address, encode_station(signals))

    def close(self) -> None:
        """Disconnect. Never raises."""
        self._connection.close()
