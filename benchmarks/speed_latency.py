"""From a picture in memory to its verdict at a high resolution, every way that the machine can go it.

As in production, which on CUDA is one graph, and the same launched step by step, with each recurrence that
runs there (on CUDA mamba-ssm's and ours), beside `paper` step by step in float32, the published method as it
was. Scores are compared with those of float32 on the CPU.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import varad_core.model
from benchmarks.reporting import print_table
from benchmarks.speed_cases import Bundles, ImageRgb, buttons, in_own_process, shown
from benchmarks.turns import pair_ratio, take_turns
from varad_core.config import Preset
from varad_core.inspector import Inspector
from varad_core.selective_scan import Backend, selective_scan
from varad_core.tokenizer import to_tensor

COMPARED = 3  # pictures whose scores are computed on the CPU as well, which takes seconds each


def run_latency(args: argparse.Namespace, bundles: Bundles) -> list[dict[str, Any]]:
    paths: dict[Preset, Path] = {
        preset: bundles.path(preset, args.latency_px) for preset in ("station", "paper")
    }
    cases = [
        case
        for device in args.device
        for case in in_own_process(latencies, paths, args.images, args.rounds, device)
    ]
    print(f"From a picture of {args.latency_px} px in memory to its score, batch 1, ms")
    rows = []
    for case in cases:
        off = "-" if case["score_off"] is None else f"{case['score_off']:.1e}"
        times = (shown(case[name]) for name in ("p50_ms", "p99_ms", "over_first"))
        rows.append([f"{case['device']} {case['case']}", *times, off])
    print_table(["case", "p50", "p99", "ratio to the first", "score, farthest from the CPU's"], rows)
    return cases


@torch.inference_mode()
def latencies(paths: Mapping[Preset, Path], images: int, rounds: int, device: str) -> list[dict[str, Any]]:
    """One row per way; the first is production's."""
    station, paper = (partial(Inspector.load, path, trusted_keys=None) for path in paths.values())
    on_cpu = station(device="cpu")
    pictures = buttons(images, on_cpu.input_size_px)
    reference = [on_cpu.inspect(picture).score for picture in pictures[:COMPARED]]
    ways: dict[str, Callable[[ImageRgb], float]] = {}
    for backend in backends(device):
        ways[f"station, production, {backend}"] = by(backend, partial(production, station(device=device)))
        ways[f"station, step by step, {backend}"] = by(backend, partial(step_by_step, station(device=device)))
    ways["paper, step by step"] = partial(step_by_step, paper(device=device), full_precision=True)
    times_ms: dict[str, list[float]] = {name: [] for name in ways}
    for picture in pictures:
        turns = {name: partial(way, picture) for name, way in ways.items()}
        for name, times in take_turns(turns, rounds, device).items():
            times_ms[name] += times
    first = times_ms[next(iter(ways))]
    return [
        {
            "device": device,
            "case": name,
            "p50_ms": float(np.percentile(times, 50)),
            "p99_ms": float(np.percentile(times, 99)),
            "over_first": pair_ratio(times, first),
            "score_off": farthest(ways[name], pictures, reference) if name.startswith("station") else None,
        }
        for name, times in times_ms.items()
    ]


def backends(device: str) -> list[Backend]:
    """The recurrences that run there, the one that `auto` takes first."""
    if torch.device(device).type != "cuda":
        return ["auto"]
    found: list[Backend] = ["mamba"] if find_spec("mamba_ssm") else []
    return [*found, "triton"]


def by(backend: Backend, way: Callable[[ImageRgb], float]) -> Callable[[ImageRgb], float]:
    """The same with this recurrence; a graph keeps the one that it was captured with."""

    def called(image_rgb: ImageRgb) -> float:
        with mock.patch.object(varad_core.model, "selective_scan", partial(selective_scan, backend=backend)):
            return way(image_rgb)

    return called


def production(inspector: Inspector, image_rgb: ImageRgb) -> float:
    return inspector.inspect(image_rgb).score


def step_by_step(inspector: Inspector, image_rgb: ImageRgb, full_precision: bool = False) -> float:
    """Each operation launched by itself; the map stays on the device."""
    tiles_rgb = inspector.align(image_rgb).image_rgb[None]
    if full_precision or inspector.device.type == "cpu":
        hierarchies = inspector.tokenizer(to_tensor(tiles_rgb).to(inspector.device))
    else:
        hierarchies = inspector.tokenize_on_gpu(torch.from_numpy(tiles_rgb).to(inspector.device))
    maps = inspector.scoring.maps(inspector.model.predict(inspector.model.prepare(hierarchies)))
    return float(inspector.scoring.scores(maps)[0])


def farthest(
    way: Callable[[ImageRgb], float], pictures: Sequence[ImageRgb], reference: Sequence[float]
) -> float:
    return max(abs(way(picture) - score) for picture, score in zip(pictures, reference, strict=False))
