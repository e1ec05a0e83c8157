"""What the doctor finds, check by check, on a line of the shipped configuration."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from line_runs import PASS, run_line, wait_until
from scripted_line import STAND_IN, ScriptedCamera, line_config

from station.config import StationConfig
from station.doctor_command import findings
from station.engine import Engine

GB = 1_000_000_000


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def found(config: StationConfig, check: str) -> tuple[str, str]:
    return next(finding for name, finding in findings(config) if name == check)  # none behind it is made


@pytest.fixture
def with_free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A disk with so many bytes free, which a test cannot have at will."""

    def free(count: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10 * GB, 10 * GB - count, count))

    return free


def test_too_little_space_for_pictures_is_a_failure_with_figures(
    tmp_path: Path, with_free: Callable[[int], None]
) -> None:
    config = line_config(tmp_path, record={"ballast_mb": 64.0})
    with_free(89_000_000)
    state, text = found(config, "disk")
    assert (state, text.split(" at ")[0]) == ("fail", "89 MB free")
    assert "128 needed to keep pictures; free some" in text
    config.database_path.with_name("ballast").touch()  # kept back already: what is free is beyond it
    assert found(config, "disk")[0] == "warn"
    with_free(9 * GB)
    assert found(config, "disk")[0] == "ok"


def test_the_record_of_another_station_is_told(tmp_path: Path, no_leaks: None) -> None:
    config = line_config(tmp_path)
    run_line(Engine(config, parts=3, cameras=[ScriptedCamera([PASS])], command=STAND_IN))
    assert found(config, "record") == ("ok", "3 parts recorded, nothing altered")
    other = config.model_copy(update={"station": config.station.model_copy(update={"name": "Line 9"})})
    state, text = found(other, "record")
    assert state == "warn"
    assert f"3 parts of {config.station.name!r}, and this is 'Line 9'" in text
    assert "change station.data_dir" in text


def test_a_metrics_port_that_another_program_has_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = line_config(tmp_path, metrics={"port": port})
        state, text = found(config, "metrics")
    assert state == "warn"
    assert f"127.0.0.1:{port}: Address already in use; change metrics.port" in text
    assert found(config, "metrics") == ("ok", f"127.0.0.1:{port}")


def test_the_camera_s_picture_is_described(tmp_path: Path) -> None:
    assert "sent a colour picture of 512 x 512 px" in found(line_config(tmp_path), "camera")[1]


def test_ports_that_another_line_has_are_not_taken_for_this_line_s(tmp_path: Path, no_leaks: None) -> None:
    config = line_config(tmp_path)
    assert found(config, "line") == ("ok", "does not run")
    engine = Engine(config, cameras=[ScriptedCamera([PASS])], command=STAND_IN)
    engine.start()
    try:
        wait_until(lambda: found(config, "line") == ("ok", "runs with this configuration"))
    finally:
        engine.stop("done")
    with socket.socket() as other_line:
        other_line.bind((config.publishing.host, config.publishing.port))
        other_line.listen()
        assert found(config, "line") == (
            "warn",
            "does not run, and yet its ports are taken: by another line? change publishing.port",
        )
