"""`station plc-sim` and the doctor's look at a PLC, as their user meets them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_line import ROOT, free_port

from drivers.ladder import LadderSettings
from drivers.plc_simulator import PlcSimulator
from station.cli import main
from station.config import load_config
from station.doctor_command import _plc

SHIPPED = (ROOT / "config.yaml").read_text()


@pytest.fixture
def plc() -> Iterator[PlcSimulator]:
    with PlcSimulator(LadderSettings()) as simulator:
        yield simulator


def config_file(folder: Path, port: int) -> Path:
    path = folder / "config.yaml"
    text = SHIPPED.replace("port: 17800", f"port: {free_port()}")
    path.write_text(
        text.replace("  driver: none  ", f"  port: {port}\n  host: 127.0.0.1\n  driver: modbus ", 1)
    )
    return path


def test_a_port_that_is_taken_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], plc: PlcSimulator
) -> None:
    assert main(["plc-sim", "--port", str(plc.port)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "give another port" in said[-1]
    assert said[-1].startswith("station: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--interval-ms", "-1"], "must be 0 to 600000 (got -1)"),
        (["--port", "no"], "invalid int value: 'no'"),
        (["--travel-ms", "soon"], "must be a number (got 'soon')"),
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["plc-sim", *arguments])
    assert caught.value.code == 2
    assert f"argument {arguments[0]}: {message}" in capsys.readouterr().err


def test_the_doctor_says_what_the_plc_lacks(tmp_path: Path, plc: PlcSimulator) -> None:
    config = load_config(config_file(tmp_path, plc.port))
    assert _plc(config)[0] == "ok"
    plc.running = False
    assert _plc(config) == (
        "fail",
        "the registers are there, but the heartbeat stands still: put the PLC in RUN",
    )
    plc.stop()
    state, text = _plc(config)
    assert state == "fail"
    assert "no connection within 300 ms; check address and cable" in text
    assert _plc(load_config(ROOT / "config.yaml")) == ("ok", "none configured")
