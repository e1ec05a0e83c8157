"""Logs as files: JSON lines, rotated, of the engine and of its worker; the terminal keeps its text."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from line_runs import PASS, run_line
from scripted_line import STAND_IN, ScriptedCamera, line_config
from standin import FAULTS

from station.engine import Engine
from station.logs import LogFile, logging_to

LOG = logging.getLogger("station.test")


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_line_is_one_json_object_and_the_terminal_shows_no_more_than_before(
    tmp_path: Path, no_leaks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "engine.jsonl"
    shown = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(shown)
    with logging_to(LogFile(path, "INFO", 1_000_000, 1)):
        LOG.debug("not written")
        LOG.info("zwei\nZeilen: %s", "Ä")
        try:
            raise ValueError("why")
        except ValueError:
            LOG.exception("it broke")
    LOG.warning("behind the end")
    logging.getLogger().removeHandler(shown)
    first, second = lines(path)
    assert (first["level"], first["message"]) == ("INFO", "zwei\nZeilen: Ä")
    assert "ValueError: why" in str(second["exception"])
    assert set(first) == {"time", "level", "logger", "thread", "pid", "message"}
    told = capsys.readouterr().err
    assert "it broke" in told
    assert "zwei" not in told


def test_files_are_put_aside_and_the_oldest_go(tmp_path: Path, no_leaks: None) -> None:
    path = tmp_path / "engine.jsonl"
    with logging_to(LogFile(path, "INFO", 2_000, 2)):
        for number in range(100):
            LOG.info("line %d", number)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "engine.jsonl",
        "engine.jsonl.1",
        "engine.jsonl.2",
    ]
    assert all(file.stat().st_size <= 2_000 for file in tmp_path.iterdir())
    assert lines(path)[-1]["message"] == "line 99"


def test_a_log_that_cannot_be_written_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with logging_to(LogFile(tmp_path / "logs" / "engine.jsonl", "INFO", 1000, 1)):
        LOG.info("one")
        LOG.info("two")
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("log: ")


def test_the_worker_logs_into_its_own_file(tmp_path: Path, no_leaks: None) -> None:
    config = line_config(tmp_path)
    script = [PASS, (0, 0, FAULTS["error"])]
    run_line(Engine(config, parts=2, cameras=[ScriptedCamera(script)], command=STAND_IN))
    ready, refused = lines(config.logs_dir / "worker.jsonl")
    assert ready["message"] == "ready: stand-in standin00000"
    assert "the detector refused this image" in str(refused["message"])
    assert ready["pid"] == refused["pid"]


def test_a_line_that_does_not_start_leaves_the_reason(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    text = (Path(__file__).parents[2] / "config.yaml").read_text()
    config.write_text(text.replace("bundle: demo ", "bundle: gone.safetensors "))
    command = [sys.executable, "-m", "station.cli", "serve", "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    logged = lines(tmp_path / "station-data" / "logs" / "engine.jsonl")
    assert any("gone.safetensors: no such file" in str(line["message"]) for line in logged)
