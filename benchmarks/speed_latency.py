"""From a picture in memory to its verdict at a high resolution, every way that the machine can go it.

As in production, which on CUDA is one graph; there also the same launched step by step, each with every
recurrence that runs (mamba-ssm's, ours). Beside them `paper`, on CUDA step by step in float32: the published
method as it was. Scores are compared with those of float32 on the CPU.
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
from torch import Tensor

import varad_core.model
from benchmarks.reporting import print_table
from benchmarks.speed_cases import Bundles, ImageRgb, buttons, in_own_process, shown
from benchmarks.turns import pair_ratio, take_turns
from varad_core.config import Preset
from varad_core.inspector import Inspector
from varad_core.selective_scan import Backend, selective_scan
from varad_core.types import one_line

Way = Callable[[ImageRgb], float]  # a picture's score

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
    print("From a picture in memory, as large as the model's input, to score and map, batch 1, ms")
    rows = []
    for case in cases:
        off = "-" if case["score_off"] is None else f"{case['score_off']:.1e}"
        times = (shown(case[name]) for name in ("p50_ms", "p99_ms", "over_first"))
        rows.append([f"{case['device']} {case['case']}", str(case["size_px"]), *times, off])
    print_table(["case", "px", "p50", "p99", "ratio to the first", "score, farthest from the CPU's"], rows)
    return cases


@torch.inference_mode()
def latencies(paths: Mapping[Preset, Path], images: int, rounds: int, device: str) -> list[dict[str, Any]]:
    """One row per way; the first is production's."""
    station, paper = (partial(Inspector.load, path, trusted_keys=None) for path in paths.values())
    on_cpu = station(device="cpu")
    pictures = buttons(images, on_cpu.input_size_px)
    reference = [on_cpu.inspect(picture).score for picture in pictures[:COMPARED]]
    on_cuda = torch.device(device).type == "cuda"
    ways: dict[str, Way] = {}
    for backend in backends(device):
        own = {f"station, production, {backend}": by(backend, station(device=device))}
        if on_cuda:
            own[f"station, step by step, {backend}"] = by(backend, step_by_step(station(device=device)))
        try:
            for way in own.values():
                way(pictures[0])
        except RuntimeError as error:  # installed, but for another torch, or too little memory
            print(f"latency: {backend} left out: {one_line(error)}")
        else:
            ways |= own
    published = paper(device=device)
    ways["paper"] = by("auto", step_by_step(published, full_precision=True) if on_cuda else published)
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
            "size_px": on_cpu.input_size_px,
            "images": len(pictures),
            "p50_ms": float(np.percentile(times, 50)),
            "p99_ms": float(np.percentile(times, 99)),
            "over_first": pair_ratio(times, first),
            "score_off": farthest(ways[name], pictures, reference) if name.startswith("station") else None,
        }
        for name, times in times_ms.items()
    ]


def backends(device: str) -> list[Backend]:
    """The recurrences that may run there, the one that `auto` takes first."""
    if torch.device(device).type != "cuda":
        return ["auto"]
    found: list[Backend] = ["mamba"] if find_spec("mamba_ssm") else []
    return [*found, "triton" if find_spec("triton") else "chunked"]


def by(backend: Backend, inspector: Inspector) -> Way:
    """Inspect with this recurrence; a graph keeps the one that it was captured with."""

    def score(image_rgb: ImageRgb) -> float:
        with mock.patch.object(varad_core.model, "selective_scan", partial(selective_scan, backend=backend)):
            return inspector.inspect(image_rgb).score

    return score


def step_by_step(inspector: Inspector, *, full_precision: bool = False) -> Inspector:
    """The same on CUDA without its graph: each operation is launched by itself."""

    def maps(tiles_rgb: ImageRgb) -> Tensor:
        images = torch.from_numpy(tiles_rgb).to(inspector.device)
        if not full_precision:
            return inspector._forward(images)
        hierarchies = inspector.tokenizer(images.permute(0, 3, 1, 2).float() / 255)
        return inspector.scoring.maps(inspector.model.predict(inspector.model.prepare(hierarchies)))

    inspector._graph = maps  # type: ignore[assignment]
    return inspector


def farthest(way: Way, pictures: Sequence[ImageRgb], reference: Sequence[float]) -> float:
    return max(abs(way(picture) - score) for picture, score in zip(pictures, reference, strict=False))
