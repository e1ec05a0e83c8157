"""kill -9 of the engine at random moments, over and over in the same data folder.

Each trial starts a whole line (real worker process, stand-in detector), kills its engine while it opens,
while it recovers from the kill before or while parts run, and looks at the disk as the next start would: what
had been acknowledged to the world outside must be there, row by row and picture by picture.
"""

import argparse
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.line_process import LineProcess, write_config
from benchmarks.reporting import print_table
from benchmarks.vital_signs import children, is_gone
from db.archive import Archive
from db.chain import read_faults
from db.errors import RecordError
from db.queries import read_known_files
from db.session import open_read_only

IN_THE_START = 0.25  # share of the trials whose kill comes while the line opens
OPTIONS = ["--prepared", "--think-ms", "1"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=200, help="how often to kill (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: 1)")
    parser.add_argument("--run-s", type=float, default=0.6, help="longest life under way (default: 0.6 s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        trials = KillTrials(Path(folder))
        begun_s = time.monotonic()
        for _ in range(args.trials):
            in_the_start = trials.start_s and chance.random() < IN_THE_START
            trials.kill_once(None if in_the_start else chance.uniform(0, args.run_s), chance)
        trials.last_start()
        results = trials.results() | {
            "seed": args.seed,
            "s_per_trial": round((time.monotonic() - begun_s) / args.trials, 2),
        }
    print_table(["figure", ""], [[name.replace("_", " "), str(value)] for name, value in results.items()])
    return results


class KillTrials:
    """One data folder, killed again and again."""

    def __init__(self, folder: Path) -> None:
        self._data_dir = folder / "data"
        self._told = folder / "told"
        self._config = write_config(
            folder / "config.json",
            self._data_dir,
            {
                "cameras": [{"driver": "simulated", "camera_id": "CAM 1", "width_px": 64, "height_px": 64}],
                "trigger": {"interval_ms": 8.0},
                "record": {"linger_ms": 5.0, "pass_image_every": 3, "ballast_mb": 1.0},
            },
        )
        self.start_s: list[float] = []
        self._acknowledged: set[str] = set()
        self._in_the_start = self._under_way = self._pictures = 0
        self._checked_files: set[str] = set()
        self.faults: dict[str, set[str]] = {
            name: set()
            for name in (
                "acknowledged_rows_lost",
                "rows_without_their_picture",
                "chains_broken",
                "database_damaged",
                "high_water_mark_missed",
                "workers_left_behind",
                "starts_failed",
            )
        }

    def kill_once(self, after_s: float | None, chance: random.Random) -> None:
        """One life: killed `after_s` after its start, or, with None, at any moment before."""
        begun_s = time.monotonic()
        line = LineProcess(self._config, self._told, OPTIONS)
        worker: int | None = None
        if after_s is None:
            time.sleep(chance.uniform(0, max(self.start_s[-20:])))
        else:
            try:
                worker = line.wait_started()
            except RuntimeError as error:
                self.faults["starts_failed"].add(str(error))
            else:
                self.start_s.append(time.monotonic() - begun_s)
                time.sleep(after_s)
        processes = children(line.process.pid)
        line.end(signal.SIGKILL)
        told = line.told()
        self._under_way += worker is not None
        self._in_the_start += worker is None
        self._acknowledged.update(words[1] for words in told if words[0] == "recorded")
        for child in {*processes, *([worker] if worker else [])}:
            if not _gone(child):
                self.faults["workers_left_behind"].add(str(child))
        self.look()

    def last_start(self) -> None:
        """What the last kill left is put in order by a start, and all is looked at again."""
        line = LineProcess(self._config, self._told, OPTIONS)
        line.wait_started()
        status = line.end(signal.SIGTERM)
        if status:
            self.faults["starts_failed"].add(f"the last line ended with status {status}")
        self._acknowledged.update(words[1] for words in line.told() if words[0] == "recorded")
        self._checked_files.clear()
        self.look()
        self.faults["starts_failed"] |= {f"left behind: {path}" for path in self._data_dir.rglob("*.tmp")}

    def look(self) -> None:
        """Compare what is on the disk with what was acknowledged."""
        path = self._data_dir / "station.db"
        if not path.exists():
            self.faults["acknowledged_rows_lost"] |= self._acknowledged
            return
        try:
            with _reading(path) as (connection, loss):
                recorded = set(connection.exec_driver_sql("SELECT uid FROM part").scalars())
                checked = connection.exec_driver_sql("PRAGMA integrity_check").scalars().first()
                broken = read_faults(connection)
                files = read_known_files(connection)
        except RecordError as error:
            self.faults["database_damaged"].add(str(error))
            return
        if checked != "ok":
            self.faults["database_damaged"].add(str(checked))
        self.faults["chains_broken"].update(broken)
        self.faults["high_water_mark_missed"] |= {loss} if loss else set()
        self.faults["acknowledged_rows_lost"] |= self._acknowledged - recorded
        self.rows = len(recorded)
        archive = Archive(self._data_dir / "images")
        for file in files - self._checked_files:
            try:
                picture: Any = (
                    archive.load_map(file) if file.endswith(".map.png") else archive.load_image(file)
                )
                assert np.size(picture)
            except RecordError as error:
                self.faults["rows_without_their_picture"].add(str(error))
        self._checked_files |= files
        self._pictures = len(files)

    def results(self) -> dict[str, Any]:
        """The account of all trials."""
        kept = {name: len(found) for name, found in self.faults.items()}
        for name, found in self.faults.items():
            print("".join(f"{name}: {text}\n" for text in sorted(found)[:5]), end="")
        start_s = sorted(self.start_s)
        return {
            "exact": not any(kept.values()),
            "killed_in_the_start": self._in_the_start,
            "killed_under_way": self._under_way,
            "rows_acknowledged": len(self._acknowledged),
            "rows_in_the_record": self.rows,
            "files_named_by_rows": self._pictures,
            **kept,
            "start_s_median": round(start_s[len(start_s) // 2], 2),
            "start_s_longest": round(start_s[-1], 2),
        }


@contextmanager
def _reading(path: Path) -> Iterator[tuple[Any, str]]:
    database = open_read_only(path)
    try:
        with database.connect() as connection:
            yield connection, database.loss
    finally:
        database.close()


def _gone(pid: int, patience_s: float = 10.0) -> bool:
    """Whether a process ends within so many seconds."""
    give_up_s = time.monotonic() + patience_s
    while not is_gone(pid):
        if time.monotonic() > give_up_s:
            return False
        time.sleep(0.01)
    return True
