"""kill -9 of the engine at random moments."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripted_line import ROOT

from db.queries import read_known_files
from db.session import open_read_only

TRIALS = 6  # `python -m benchmarks kill` makes hundreds


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_no_acknowledged_row_is_lost_and_the_line_starts_again(tmp_path: Path) -> None:
    chance = random.Random(20)
    acknowledged: set[str] = set()
    for trial in range(TRIALS):
        told = run_and_kill(tmp_path, chance.uniform(0.0, 0.5) if trial else 0.5)
        acknowledged.update(told)
        database = open_read_only(tmp_path / "station.db")
        with database.connect() as connection:
            recorded = set(connection.exec_driver_sql("SELECT uid FROM part").scalars())
            (checked,) = connection.exec_driver_sql("PRAGMA integrity_check").scalars()
            files = read_known_files(connection)
        database.close()
        assert database.loss == ""
        assert checked == "ok"
        assert acknowledged <= recorded, f"trial {trial} lost {len(acknowledged - recorded)} rows"
        assert all((tmp_path / "images" / file).is_file() for file in files), "a row without its picture"
    assert len(acknowledged) > TRIALS


def run_and_kill(data_dir: Path, after_s: float) -> list[str]:
    """Start a line, kill it `after_s` after its start; the parts it had acknowledged."""
    command = [sys.executable, str(Path(__file__).with_name("killed_line.py")), str(data_dir)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith("worker "):
            break
    assert lines, "the line did not start"
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().split("\n")
    process.wait()
    process.stdout.close()
    worker = next(line for line in lines if line.startswith("worker ")).split()[1]
    give_up_s = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < give_up_s:
        time.sleep(0.01)
    assert not Path(f"/proc/{worker}").exists(), "the worker outlived the engine"
    return [line for line in lines if line and not line.startswith("worker ")]
