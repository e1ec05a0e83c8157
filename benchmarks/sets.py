"""`station evaluate` on every set of a folder in the layout of MVTec AD: the station preset, one run each."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.reporting import print_table

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
FIGURES = (
    "image_auroc",
    "image_ap",
    "pixel_auroc",
    "pixel_ap",
    "pixel_max_f1",
    "aupro",
    "ms_per_image",
    "fit_s",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of sets")
    parser.add_argument("--sets", nargs="+", help="default: every folder with train/good in it")
    parser.add_argument("--tokenizer", default="resnet18")
    parser.add_argument(
        "--weights", type=Path, default=SHARED / "weights" / "resnet18_layers1to3.safetensors"
    )
    parser.add_argument("--preset", default="station")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> dict[str, Any]:
    names = args.sets or sorted(path.parents[1].name for path in args.data.glob("*/train/good"))
    if not names:
        raise SystemExit(f"{args.data}: no set with train/good in it; name another folder with --data")
    figures = {name: evaluate(args, args.data / name) for name in names}
    rows = [[name, *(shown(of_set[key]) for key in FIGURES)] for name, of_set in figures.items()]
    means = [[of_set[key] for of_set in figures.values() if of_set[key] is not None] for key in FIGURES]
    rows.append(["mean", *(shown(sum(values) / len(values)) if values else "-" for values in means)])
    print_table(["set", *FIGURES], rows)
    settings = {key: str(getattr(args, key)) for key in ("tokenizer", "preset", "image_size", "seed")}
    return {"settings": settings, "sets": figures}


def evaluate(args: argparse.Namespace, data: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "station.cli", "evaluate", str(data), "--json", "--preset", args.preset]
    options = ["--tokenizer", args.tokenizer, "--image-size", str(args.image_size), "--seed", str(args.seed)]
    if args.tokenizer != "embedded":
        options += ["--weights", str(args.weights)]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value <= 1 else f"{value:.1f}"
