"""A line under a storm of faults, for as long as you like, and whether its account is exact behind it.

An engine in a process of its own, started again by itself as under systemd; a real worker process; a PLC
over Modbus TCP that triggers, shakes hands and sorts; the record on a small disk with retention and backups.
In the first two fifths pylon's camera emulator, in the last two the simulated camera, without an end of the
engine that was asked for, so that memory can be watched; in between it is terminated and killed as well. A
part travels longer than an engine takes to come back: what a killed one has confirmed meets the next one.
"""

import argparse
import logging
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2

from benchmarks.cameras import prepared_pictures
from benchmarks.line_process import free_port, write_config
from benchmarks.reporting import print_table
from benchmarks.soak_account import PlcBook, account, read_record, recoveries, stray_files
from benchmarks.storm import ENGINE_FAULTS, WORKER_FAULTS, Storm
from benchmarks.supervised_line import SupervisedLine
from benchmarks.vital_signs import VitalSigns, is_gone
from drivers.ladder import LadderSettings
from drivers.plc_simulator import PlcSimulator
from station.config import load_config

WARM_UP_S, SHORTEST_S = 60.0, 60.0
_TICK_S = 0.05
_DISK_MB = 400  # a backup wants 100 MB free beside it
_WIDTH_PX, _HEIGHT_PX = 320, 240


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=20.0, help="of storm (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the storm (default: 1)")
    parser.add_argument("--every-s", type=float, default=4.0, help="between two faults, mean (default: 4)")
    parser.add_argument("--interval-ms", type=float, default=250.0, help="between two parts (default: 250)")
    parser.add_argument("--travel-s", type=float, default=8.0, help="camera to gate (default: 8)")
    parser.add_argument("--demo-model", action="store_true", help="the model that ships, not a stand-in")


class CountingPlc(PlcSimulator):
    """The simulated PLC; its counts survive its restarts in a book."""

    def __init__(self, settings: LadderSettings, book: PlcBook) -> None:
        super().__init__(settings, on_sorted=book.sorted)
        self._book = book
        self._counting = False

    def start(self) -> None:
        super().start()
        self._counting = True

    def stop(self) -> None:
        super().stop()
        if self._counting:
            self._counting = False
            self._book.session_ended(self.ladder.counts, self.ladder.in_transit)


def run(args: argparse.Namespace) -> dict[str, Any]:
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # it tells of each connection that we cut
    shared_before = _shared_memory()
    with tempfile.TemporaryDirectory(prefix="soak-") as name, _small_disk(Path(name) / "disk") as disk:
        results = _soak(args, Path(name), disk)
    left = sorted(_shared_memory() - shared_before)
    results["left_behind"]["shared_memory"] = left
    results["exact"] = not results["account"]["faults"] and not any(results["left_behind"].values())
    _print(results)
    return results


def _soak(args: argparse.Namespace, folder: Path, disk: Path | None) -> dict[str, Any]:
    book = PlcBook()
    settings = LadderSettings(interval_s=args.interval_ms / 1e3, travel_s=args.travel_s)
    options = ["--storm"] if args.demo_model else ["--storm", "--think-ms", "10"]
    with CountingPlc(settings, book) as plc:
        configs = _configs(folder, disk or folder, plc.port)
        config = load_config(configs["simulated"])
        begun_s = time.monotonic()
        whole_s = 60 * args.minutes
        line = SupervisedLine(
            lambda lives: configs[_camera((time.monotonic() - begun_s) / whole_s, lives)],
            folder / "told",
            options,
        )
        storm = Storm(line, plc, config, configs["simulated"], disk, args.seed, args.every_s)
        told_s = begun_s
        while (now_s := time.monotonic()) < begun_s + whole_s:
            share = (now_s - begun_s) / whole_s
            storm.spared = _spared(share)
            if share >= 0.6 and line.camera == "pylon":  # the last act is the simulated camera's
                line.send(signal.SIGTERM)
            line.watch()
            storm.blow()
            if now_s - told_s > 60:
                told_s = now_s
                print(f"{share:4.0%}: {len(storm.faults)} faults, {len(book.lanes)} parts sorted", flush=True)
            time.sleep(_TICK_S)
        storm.calm()
        _clear_the_belt(plc, line, args.travel_s)
        line.stop()
    rows, wrong, files = read_record(config.database_path)
    return {
        "minutes": args.minutes, "seed": args.seed, "model": "demo" if args.demo_model else "stand-in",
        "small_disk": disk is not None,
        "account": account(book, line.ends, rows, wrong),
        "faults_injected": len(storm.faults),
        "faults": recoveries(storm.faults, rows),
        "engines": {
            "lives": len(line.ends),
            "asked_to_end": dict(Counter(end.asked for end in line.ends if end.asked)),
            "ended_unasked": [end.status for end in line.ends if not end.asked],
        },
        "longest_s_without_a_pass": longest_gap_s(rows),
        "processes": vital_figures(line.vital_signs),
        "left_behind": {
            "processes": [pid for pid in line.vital_signs.lives if not is_gone(pid)],
            "files": stray_files(config.images_dir, files),
        },
    }  # fmt: skip


def _configs(folder: Path, disk: Path, plc_port: int) -> dict[str, Path]:
    """The configuration with either camera, for one data folder."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, image_rgb in enumerate(prepared_pictures(_WIDTH_PX, _HEIGHT_PX)):
        cv2.imwrite(str(pictures / f"{number:03}.png"), cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))
    cameras: dict[str, dict[str, Any]] = {
        "pylon": {"emulated": True, "pixel_format": "RGB8Packed", "image_folder": str(pictures)},
        "simulated": {"width_px": _WIDTH_PX, "height_px": _HEIGHT_PX},
    }
    sections: dict[str, Any] = {
        "trigger": {"source": "plc", "late_ms": 100.0},
        "plc": {"driver": "modbus", "host": "127.0.0.1", "port": plc_port},
        "outputs": {"reject_gate": {"driver": "none"}, "reject_delay_ms": 1000.0},
        "inspection": {"max_restarts_per_hour": 1000, "hang_ms": 2000.0},
        "record": {"pass_image_every": 5, "ballast_mb": 8.0},
        "housekeeping": {
            "every_minutes": 0.2, "max_images_gb": 0.02, "backup_hours": 0.03, "backups_kept": 2,
        },
        "log": {"max_mb": 1.0, "kept": 2},
    }  # fmt: skip
    sections["publishing"] = {"port": free_port()}
    return {
        name: write_config(
            folder / f"{name}.json",
            disk / "data",
            sections | {"cameras": [{"driver": name, "camera_id": "CAM 1"} | camera]},
        )
        for name, camera in cameras.items()
    }


def _camera(share: float, lives: int) -> str:
    """Pylon first, the simulated one at the end, in turns between."""
    if share < 0.4:
        return "pylon"
    return "simulated" if share >= 0.6 or lives % 2 else "pylon"


def _spared(share: float) -> tuple[str, ...]:
    """What has peace now, so that its memory can be watched: the engine, and at last the worker too."""
    if 0.4 <= share < 0.6:
        return ()
    return ENGINE_FAULTS if share < 0.8 else ENGINE_FAULTS + WORKER_FAULTS


def _clear_the_belt(plc: PlcSimulator, line: SupervisedLine, travel_s: float) -> None:
    """No more triggers; every part reaches its gate, under an engine that is there again."""
    plc.settings.interval_s = 0.0
    give_up_s = time.monotonic() + 60
    clear_s = time.monotonic() + travel_s + 1
    while time.monotonic() < clear_s or (not line.started and time.monotonic() < give_up_s):
        line.watch()
        time.sleep(_TICK_S)


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk that may be filled; None where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        print("no small disk can be mounted here: no disk is filled")
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def _shared_memory() -> set[str]:
    """Names in /dev/shm, without the semaphores of other programs' joblib and multiprocessing."""
    others = ("sem.loky-", "sem.mp-")
    return {path.name for path in Path("/dev/shm").iterdir() if not path.name.startswith(others)}


def longest_gap_s(rows: Mapping[str, Any]) -> float:
    """Longest time between two triggers of parts that passed."""
    passed_ns = sorted(row.triggered_unix_ns for row in rows.values() if row.verdict == "PASS")
    return round(max((b - a for a, b in pairwise(passed_ns)), default=0) / 1e9, 1)


def vital_figures(signs: VitalSigns) -> list[dict[str, Any]]:
    """Of each process that lived long enough for a slope, behind its warm-up."""
    found = []
    for pid, life in signs.lives.items():
        slope = life.slope_mb_per_h(WARM_UP_S, SHORTEST_S)
        if slope is None:
            continue
        first = next(k for k, at_s in enumerate(life.at_s) if at_s >= WARM_UP_S)
        found.append(
            {
                "process": life.name, "pid": pid, "minutes": round(life.at_s[-1] / 60, 1),
                "mb_first": round(life.resident_mb[first], 1), "mb_last": round(life.resident_mb[-1], 1),
                "mb_per_h": round(slope, 1),
                "threads_first": life.threads[first], "threads_last": life.threads[-1],
                "files_first": life.files[first], "files_last": life.files[-1],
            }
        )  # fmt: skip
    return found


def _lines(figures: Mapping[str, Any], indent: str = "") -> Iterator[list[str]]:
    """A line a figure; those that belong together stand below their name."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield [indent + name.replace("_", " "), ""]
            yield from _lines(value, indent + "  ")
        else:
            told = (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
            yield [indent + name.replace("_", " "), told]


def _print(results: Mapping[str, Any]) -> None:
    figures = {name: value for name, value in results["account"].items() if name != "faults"}
    for name in ("faults_injected", "longest_s_without_a_pass", "engines", "left_behind", "exact"):
        figures[name] = results[name]
    print_table(["account", ""], list(_lines(figures)))
    print("".join(f"NOT EXACT: {fault}\n" for fault in results["account"]["faults"][:20]))
    header = ["fault", "times", "next pass s", "longest s"]
    print_table(
        header,
        [
            [kind, str(seen["times"]), str(seen["median_s"]), str(seen["longest_s"])]
            for kind, seen in results["faults"].items()
        ],
    )
    print()
    header = ["process", "minutes", "MB", "MB/h", "threads", "open files"]
    print_table(
        header,
        [
            [
                life["process"], f"{life['minutes']:g}", f"{life['mb_first']} to {life['mb_last']}",
                f"{life['mb_per_h']:+}", f"{life['threads_first']} to {life['threads_last']}",
                f"{life['files_first']} to {life['files_last']}",
            ]
            for life in results["processes"]
        ],
    )  # fmt: skip
