"""What the line adds to its detector, and what it does when more parts come than it can judge.

Prepared pictures of 1.3 MP at a steady rate, a stand-in detector of a known time in the real worker
process, recording on disk, publishing to one screen. Overhead = trigger to verdict, less what the detector
says it took. Then the same at rising rates: what is not judged is rejected, counted, and has its reason.
"""

import argparse
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from benchmarks.line_process import LineProcess, write_config
from benchmarks.reporting import print_table
from db.models import Part
from db.session import open_read_only
from station.client import LineSubscriber
from station.config import load_config
from station.types import Preview, VerdictMessage

SETTLING_S = 2.0  # not counted: first pictures, first files, first connection of the screen
P50_LIMIT_MS, P99_LIMIT_MS = 5.0, 25.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=30.0, help="triggers per second (default: 30)")
    parser.add_argument("--seconds", type=float, default=20.0, help="at that rate (default: 20)")
    parser.add_argument("--curve", type=float, nargs="*", default=[10, 30, 60, 90, 120, 150, 200])
    parser.add_argument("--curve-seconds", type=float, default=8.0, help="at each of these (default: 8)")
    parser.add_argument("--think-ms", type=float, default=5.0, help="of the detector (default: 5)")
    parser.add_argument("--size", type=int, nargs=2, default=[1280, 1024], metavar=("W", "H"))


def run(args: argparse.Namespace) -> dict[str, Any]:
    steady = one_rate(args.rate, args.seconds, args.think_ms, args.size)
    print_table(["milliseconds", "p50", "p99", "longest"], _times(steady["ms"]))
    within = steady["ms"]["overhead"][0] <= P50_LIMIT_MS and steady["ms"]["overhead"][1] <= P99_LIMIT_MS
    print(
        f"\n{args.rate:g} triggers/s: overhead p50 <= {P50_LIMIT_MS:g} and p99 <= {P99_LIMIT_MS:g} ms: "
        f"{'yes' if within else 'NO'}; {_account(steady)}\n"
    )
    curve = [one_rate(rate, args.curve_seconds, args.think_ms, args.size) for rate in args.curve]
    header = ["asked /s", "triggered /s", "judged /s", "not judged", "why", "p50 ms", "p99 ms", "files shed"]
    print_table(header, [_curve_row(point) for point in curve])
    runs = [steady, *curve]
    exact = all(one["triggered"] == one["rows"] == one["parts"] for one in runs)
    return {"exact": exact and not steady["not_judged"], "within": within, "steady": steady, "curve": curve}


def one_rate(rate: float, seconds: float, think_ms: float, size: Sequence[int]) -> dict[str, Any]:
    """A line of its own at one rate, in a fresh data folder."""
    parts = round(rate * seconds)
    width_px, height_px = size
    camera = {"driver": "simulated", "camera_id": "CAM 1", "width_px": width_px, "height_px": height_px}
    with tempfile.TemporaryDirectory(prefix="load-") as name:
        folder = Path(name)
        sections = {"cameras": [camera], "trigger": {"interval_ms": 1000 / rate}}
        path = write_config(folder / "config.json", folder / "data", sections)
        config = load_config(path)
        screen = Screen(config.publishing.host, config.publishing.port)
        options = ["--prepared", "--think-ms", str(think_ms), "--parts", str(parts)]
        line = LineProcess(path, folder / "told", options)
        try:
            status = line.process.wait(60 + 4 * seconds)
        finally:
            line.process.kill()
            line.close()
            screen.stop()
        told = line.told()
        rows = read_rows(config.database_path)
    return figures(rows, rate) | {
        "rate": rate,
        "parts": parts,
        "triggered": next((int(words[1]) for words in told if words[0] == "ended"), 0),
        "acknowledged": sum(words[0] == "recorded" for words in told),
        "exit_status": status,
        "verdicts_on_screen": screen.verdicts,
        "previews_on_screen": screen.previews,
    }


def read_rows(database_path: Path) -> list[Mapping[str, Any]]:
    columns = (Part.verdict, Part.reason, Part.latency_ms, Part.timings_ms, Part.triggered_unix_ns)
    database = open_read_only(database_path)
    try:
        with database.connect() as connection:
            statement = select(*columns, Part.image_shed).order_by(Part.part_seq)
            return [dict(row) for row in connection.execute(statement).mappings()]
    finally:
        database.close()


def figures(rows: Sequence[Mapping[str, Any]], rate: float) -> dict[str, Any]:
    """Counts of all rows, times of those after the first `SETTLING_S`."""
    judged = [row for row in rows if row["verdict"] != "NOT_INSPECTED"]
    settled_ns = rows[0]["triggered_unix_ns"] + SETTLING_S * 1e9
    timed = [row for row in judged if row["triggered_unix_ns"] > settled_ns]
    span_s = (rows[-1]["triggered_unix_ns"] - rows[0]["triggered_unix_ns"]) / 1e9 + 1 / rate
    times: dict[str, list[float]] = {name: [] for name in ("overhead", "grab", "queue", "worker", "think")}
    for row in timed:
        ms = row["timings_ms"]
        times["overhead"].append(row["latency_ms"] - ms["think"])
        times["worker"].append(ms["detect"] - ms["think"])
        for name in ("grab", "queue", "think"):
            times[name].append(ms[name])
    return {
        "rows": len(rows),
        "not_judged": dict(Counter(row["reason"] for row in rows if row["verdict"] == "NOT_INSPECTED")),
        "verdicts": dict(Counter(row["verdict"] for row in rows)),
        "images_shed": sum(row["image_shed"] for row in rows),
        "triggered_per_s": round(len(rows) / span_s, 1),
        "judged_per_s": round(len(judged) / span_s, 1),
        "ms": {
            name: [round(float(p), 2) for p in np.percentile(values, (50, 99, 100))] if values else []
            for name, values in times.items()
        },
    }


class Screen:
    """One screen, in a thread of this process: it takes everything, as fast as it comes."""

    def __init__(self, host: str, port: int) -> None:
        self.verdicts = self.previews = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(host, port), name="screen")
        self._thread.start()

    def _watch(self, host: str, port: int) -> None:
        with LineSubscriber(host, port) as subscriber:
            while not self._ended.is_set():
                for message in subscriber.receive(100):
                    self.verdicts += isinstance(message, VerdictMessage)
                    self.previews += isinstance(message, Preview)

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()


def _times(ms: Mapping[str, Sequence[float]]) -> list[list[str]]:
    words = {
        "overhead": "overhead: trigger to verdict less detector",
        "grab": "  trigger to picture",
        "queue": "  picture to worker, copied",
        "worker": "  worker and back, less detector",
        "think": "detector",
    }
    return [[words[name], *(f"{value:.2f}" for value in values)] for name, values in ms.items()]


def _account(one: Mapping[str, Any]) -> str:
    return (
        f"triggered {one['triggered']} = {one['rows']} rows, "
        f"not judged {sum(one['not_judged'].values())}, on screen {one['verdicts_on_screen']}"
    )


def _curve_row(point: Mapping[str, Any]) -> list[str]:
    why = ", ".join(f"{count} {reason}" for reason, count in point["not_judged"].items())
    overhead = point["ms"]["overhead"] or [float("nan")] * 2
    return [
        f"{point['rate']:g}", f"{point['triggered_per_s']:g}", f"{point['judged_per_s']:g}",
        str(sum(point["not_judged"].values())), why or "-", f"{overhead[0]:.1f}", f"{overhead[1]:.1f}",
        str(point["images_shed"]),
    ]  # fmt: skip
