"""A PLC to try things with: a Modbus TCP server whose registers a `Ladder` works on, in a thread of its own.

Besides the handshake's holding registers it has coils 0 to 15, for gates and lamps.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self, cast

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from drivers.errors import PlcError
from drivers.ladder import Ladder, LadderSettings
from drivers.plc import STATION_REGISTERS, decode_station, encode_plc

READ_ADDRESS, WRITE_ADDRESS = 0, 100
COILS = 16
_REGISTERS = 256
_READ_COILS, _READ_HOLDING, _WRITE_HOLDING = 1, 3, 16
_START_S = 10.0


class PlcSimulator:
    """Server and program, from `start` to `stop`; may be started again, which is a restart of the PLC."""

    def __init__(
        self,
        settings: LadderSettings,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        scan_s: float = 0.002,
        on_sorted: Callable[[int, int, bool], None] | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            settings: of the simulated line; kept, and may be changed at any time.
            host: address to listen at.
            port: TCP port; 0 = any free one, and the same one at each further start.
            scan_s: time between two passes through the program, seconds.
            on_sorted: see `Ladder`; called in the simulator's thread.
        """
        self.settings = settings
        self._on_sorted = on_sorted
        self.host = host
        self.port = port
        self.ladder = Ladder(settings, 0, on_sorted)
        self.running = True
        """False = the CPU is in STOP: the server answers, the program does not run."""
        self.answering = True
        """False = requests are taken and never answered."""
        self.garbage: list[int] | None = None
        """Written over the PLC's registers instead of its signals."""
        self._scan_s = scan_s
        self._starts = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: ModbusTcpServer | None = None
        self._ended: asyncio.Event | None = None
        self._started = threading.Event()
        self._error: BaseException | None = None

    def start(self) -> None:
        """Listen, and run the program; everything it remembered is gone.

        Raises:
            PlcError: the port cannot be had.
        """
        self._starts += 1
        self.ladder = Ladder(self.settings, self._starts, self._on_sorted)
        self._started.clear()
        self._error = None
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="plc-simulator", daemon=True
        )
        self._thread.start()
        if not self._started.wait(_START_S) or self._error is not None:
            self.stop()
            raise PlcError(
                f"PLC simulator: cannot listen at {self.host}:{self.port} ({self._error}); give another port"
            )

    def stop(self) -> None:
        """Close every connection and end. May be called in any state."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        loop, ended = self._loop, self._ended
        if loop is not None and ended is not None:
            with suppress(RuntimeError):  # the loop has ended by itself: its port was taken
                loop.call_soon_threadsafe(ended.set)
        thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def coils(self) -> list[bool]:
        """The levels of coils 0 to 15."""
        assert self._server is not None
        values = self._call(self._server.async_getValues(0, _READ_COILS, 0, COILS))
        return [bool(value) for value in values]

    def _call(self, work: Coroutine[Any, Any, list[int] | list[bool]]) -> list[int] | list[bool]:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_START_S)

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            self._server = ModbusTcpServer(self._device(), address=(self.host, self.port))
            await self._server.serve_forever(background=True)
        except (RuntimeError, OSError) as error:
            self._error = error
            self._started.set()
            return
        listening = cast(asyncio.Server, self._server.transport)
        self.port = listening.sockets[0].getsockname()[1]
        self._started.set()
        try:
            while not self._ended.is_set():
                if self.running:
                    await self._scan(self._server)
                await asyncio.sleep(self._scan_s)
        finally:
            await self._server.shutdown()  # type: ignore[no-untyped-call]

    def _device(self) -> SimDevice:
        def area(count: int, datatype: DataType) -> list[SimData]:
            return [
                SimData(0, count=count, values=False if datatype is DataType.BITS else 0, datatype=datatype)
            ]

        return SimDevice(
            id=0,  # answers for every unit
            simdata=(
                area(COILS, DataType.BITS),
                area(COILS, DataType.BITS),
                area(_REGISTERS, DataType.REGISTERS),
                area(1, DataType.REGISTERS),
            ),
            action=self._before_answer,
        )

    async def _before_answer(self, *request: Any) -> None:
        """pymodbus awaits this before each access, the program's own included."""
        while not self.answering and self._ended is not None and not self._ended.is_set():
            await asyncio.sleep(self._scan_s)

    async def _scan(self, server: ModbusTcpServer) -> None:
        registers = await server.async_getValues(0, _READ_HOLDING, WRITE_ADDRESS, STATION_REGISTERS)
        try:
            station = decode_station([int(value) for value in registers])
        except PlcError:
            station = None  # the station has not written yet
        signals = self.ladder.scan(time.monotonic(), station)
        await server.async_setValues(0, _WRITE_HOLDING, READ_ADDRESS, self.garbage or encode_plc(signals))
