"""Outputs, one contract for all: simulated, pylon's emulator, and coils of a real Modbus TCP server."""

import socket
import time
from collections.abc import Callable, Iterator

import pytest
from pymodbus.exceptions import ModbusException

from drivers.config import (
    CameraOutputConfig,
    ModbusOutputConfig,
    NoOutputConfig,
    PylonConfig,
    SimulatedConfig,
    SimulatedOutputConfig,
)
from drivers.errors import OutputError
from drivers.ladder import LadderSettings
from drivers.modbus import ModbusOutput
from drivers.outputs import REMEMBERED, CameraOutput, DigitalOutput, NoOutput, SimulatedOutput, create_output
from drivers.plc_simulator import PlcSimulator
from drivers.pylon import PylonCamera
from drivers.simulated import SimulatedCamera

Wired = tuple[DigitalOutput, Callable[[], bool]]  # and what its level is, seen from outside


@pytest.fixture
def plc() -> Iterator[PlcSimulator]:
    with PlcSimulator(LadderSettings()) as simulator:
        yield simulator


@pytest.fixture
def camera() -> Iterator[PylonCamera]:
    emulated = PylonCamera(PylonConfig(emulated=True, width_px=64, height_px=64))
    emulated.open()
    yield emulated
    emulated.close()


@pytest.fixture(params=["simulated", "camera", "modbus"])
def wired(request: pytest.FixtureRequest) -> Wired:
    if request.param == "simulated":
        simulated = SimulatedOutput()
        return simulated, lambda: simulated.is_on
    if request.param == "camera":
        camera = request.getfixturevalue("camera")

        def level() -> bool:
            camera._camera.UserOutputSelector.Value = "UserOutput2"
            return bool(camera._camera.UserOutputValue.Value)

        return create_output(CameraOutputConfig(user_output="UserOutput2"), camera), level
    plc = request.getfixturevalue("plc")
    return ModbusOutput(ModbusOutputConfig(host=plc.host, port=plc.port, coil=3)), lambda: plc.coils()[3]


def test_an_output_is_off_when_opened_follows_and_is_off_when_closed(wired: Wired) -> None:
    output, level = wired
    output.open()
    assert not level()
    for on in (True, True, False, True):
        output.write(on)
        assert level() is on
    output.close()
    output.close()
    assert not level()


def test_outputs_follow_their_configuration() -> None:
    camera = SimulatedCamera(SimulatedConfig())
    assert isinstance(create_output(SimulatedOutputConfig(), camera), SimulatedOutput)
    nothing = create_output(NoOutputConfig(), camera)
    assert isinstance(nothing, NoOutput)
    nothing.open()
    nothing.write(True)
    nothing.close()
    with pytest.raises(OutputError, match="UserOutput1: this camera has no user outputs"):
        create_output(CameraOutputConfig(), camera)


def test_a_simulated_output_remembers_the_times_it_was_on_and_its_memory_is_bounded() -> None:
    output = SimulatedOutput()
    with pytest.raises(OutputError, match="not switched; open it first"):
        output.write(True)
    output.open()
    before_ns = time.perf_counter_ns()
    for _ in range(REMEMBERED + 5):
        output.write(True)
        output.write(False)
    assert output.count == REMEMBERED + 5
    assert len(output.on_ns) == REMEMBERED
    assert list(output.on_ns) == sorted(output.on_ns)
    assert output.on_ns[0] >= before_ns
    output.close()
    with pytest.raises(OutputError):
        output.write(False)


def test_a_camera_that_is_closed_or_lacks_the_output_says_so(camera: PylonCamera) -> None:
    with pytest.raises(OutputError, match="UserOutput9 was not switched"):
        CameraOutput(camera, "UserOutput9").open()
    output = CameraOutput(camera, "UserOutput1")
    output.open()
    camera.close()
    with pytest.raises(OutputError, match="the camera is not open"):
        output.write(True)
    output.close()
    camera.open()
    output.write(True)  # the camera is back, and so is its output


def test_a_coil_that_cannot_be_reached_fails_in_time_and_comes_back(plc: PlcSimulator) -> None:
    output = ModbusOutput(ModbusOutputConfig(host=plc.host, port=plc.port, coil=0, timeout_ms=100))
    with pytest.raises(OutputError, match="open it first"):
        output.write(True)
    output.open()
    plc.stop()
    started_s = time.monotonic()
    with pytest.raises(OutputError, match=r"writing coil 0|no connection"):
        output.write(True)
    assert time.monotonic() - started_s < 2
    plc.start()
    output.write(True)
    assert plc.coils()[0]
    output.close()


def test_a_coil_that_the_device_does_not_have_is_refused(plc: PlcSimulator) -> None:
    output = ModbusOutput(ModbusOutputConfig(host=plc.host, port=plc.port, coil=900))
    with pytest.raises(OutputError, match="writing coil 900 refused"):
        output.open()
    output.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff" * 40,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        bytes.fromhex("0001000000020105"),
        b"\x00" * 300,
    ],
)
def test_nonsense_on_the_wire_is_an_error_like_any_other(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        output = ModbusOutput(ModbusOutputConfig(host="127.0.0.1", port=port, timeout_ms=200))
        output._is_open = True  # as before the device went mad
        output._connection._client.connect()
        peer, _ = listening.accept()
        peer.sendall(answer)
        if not answer:
            peer.close()
        with pytest.raises(OutputError) as caught:
            output.write(True)
        assert not isinstance(caught.value, ModbusException)
        output._connection.close()
        peer.close()
