"""The demo line as it ships, at its own pace: accuracy against the renderer's truth, and trigger to verdict.

Each seed is a line of its own in a fresh record: `station demo --headless --parts N --seed S --json`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.reporting import print_table

ROOT = Path(__file__).resolve().parents[1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", type=int, default=400, help="per seed (default: 400)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1001, 1002], help="default: 1001 1002")
    parser.add_argument("--interval-ms", type=float, default=250.0, help="trigger period (default: 250)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    runs = {seed: run_line(seed, args.parts, args.interval_ms) for seed in args.seeds}
    header = ["figure", *(f"seed {seed}" for seed in runs)]
    rows = [[name, *(str(value(figures)) for figures in runs.values())] for name, value in FIGURES.items()]
    classes = sorted({name for figures in runs.values() for name in figures["auroc_by_defect"]})
    rows += [
        [f"AUROC {name}", *(str(figures["auroc_by_defect"].get(name)) for figures in runs.values())]
        for name in classes
    ]
    print_table(header, rows)
    return {"parts": args.parts, "interval_ms": args.interval_ms, "runs": runs}


FIGURES: dict[str, Callable[[dict[str, Any]], object]] = {
    "parts triggered": lambda figures: figures["triggered"],
    "rows in the record": lambda figures: figures["rows"],
    "not inspected": lambda figures: figures["not_inspected"],
    "good / defective": lambda figures: f"{figures['good']} / {figures['defective']}",
    "image AUROC": lambda figures: figures["image_auroc"],
    "escapes (defective passed)": lambda figures: figures["escapes"],
    "overkill (good not passed)": lambda figures: figures["overkill"],
    "trigger to verdict p50 ms": lambda figures: figures["latency_ms"]["p50"],
    "trigger to verdict p95 ms": lambda figures: figures["latency_ms"]["p95"],
    "trigger to verdict p99 ms": lambda figures: figures["latency_ms"]["p99"],
    "parts per second": lambda figures: figures["parts_per_s"],
}


def run_line(seed: int, parts: int, interval_ms: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text((ROOT / "config.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "station.cli",
            "demo",
            "--headless",
            "--json",
            "--config",
            str(config),
        ]
        options = ["--parts", str(parts), "--seed", str(seed), "--interval-ms", str(interval_ms)]
        done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures
