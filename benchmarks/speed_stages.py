"""Time and memory of the detector's stages, over sizes and batches, both presets."""

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.reporting import print_table
from benchmarks.speed_cases import Bundles, Stages, buttons, encoded, in_own_process, peak_by_stage, shown
from benchmarks.turns import pair_ratio, take_turns
from varad_core.config import Preset
from varad_core.inspector import Inspector
from varad_core.types import VaradError

PRESETS: tuple[Preset, ...] = ("station", "paper")
SHOWN = ("decode", "align", "tokenizer", "scan", "predictor", "map", "score", "total")


def run_stages(args: argparse.Namespace, bundles: Bundles) -> list[dict[str, Any]]:
    pictures = encoded(buttons(max(args.batches), args.picture_px))
    cases: list[dict[str, Any]] = []
    for device, size_px, batch in settings(args):
        paths = {preset: bundles.path(preset, size_px) for preset in PRESETS}
        work = (stage_times, paths, pictures[:batch], args.rounds, device)
        print(f"timing {device} {size_px} px, batch {batch} ...", flush=True)
        try:
            cases += in_own_process(*work)
        except VaradError as error:
            print(f"stages: {device} {size_px} px, batch {batch}: {error}")
    print(f"Stages, ms an image, JPEGs of {args.picture_px} px; scan is a part of predictor")
    rows = [
        [
            named(case),
            *map(shown, map(case["ms_per_image"].get, SHOWN)),
            shown(case.get("paper_over_station")),
        ]
        for case in cases
    ]
    print_table(["device, preset, px, batch", *SHOWN, "paper / station"], rows)
    return cases


@torch.inference_mode()
def stage_times(
    bundles: Mapping[Preset, Path], pictures: Sequence[bytes], rounds: int, device: str
) -> list[dict[str, Any]]:
    """Both presets' stages in the same turns, one row per preset."""
    work: dict[tuple[Preset, str], Callable[[], object]] = {}
    cases: dict[Preset, dict[str, Any]] = {}
    for preset, path in bundles.items():
        inspector = Inspector.load(path, trusted_keys=None, device=device)
        stages = Stages(inspector, pictures, eager=preset == "paper")
        stages.run_all()
        recurrent = stages.record_scans()
        names = [name for name in SHOWN if name != "scan" or recurrent]
        work |= {(preset, name): getattr(stages, name) for name in names}
        cases[preset] = {
            "device": device, "preset": preset, "size_px": inspector.input_size_px, "batch": len(pictures),
            "tokenizer": inspector.config.tokenizer, "alignment": inspector.alignment.name,
            "tokens": [args[0].shape[-1] for args, _ in stages.scans],
        }  # fmt: skip
    times_ms = take_turns(work, rounds, device)
    for preset, case in cases.items():
        own = {name: times for (owner, name), times in times_ms.items() if owner == preset}
        for key, summary in (("ms_per_image", statistics.median), ("fastest_ms_per_image", min)):
            case[key] = {name: summary(times) / len(pictures) for name, times in own.items()}
    totals = times_ms["paper", "total"], times_ms["station", "total"]
    cases["paper"]["paper_over_station"] = pair_ratio(*totals)
    return list(cases.values())


def run_memory(args: argparse.Namespace, bundles: Bundles) -> list[dict[str, Any]]:
    pictures = encoded(buttons(max(args.batches), args.picture_px))
    cases: list[dict[str, Any]] = [
        {"device": device, "preset": preset, "size_px": size_px, "batch": batch}
        for device, size_px, batch in settings(args)
        for preset in PRESETS
    ]
    for case in cases:
        bundle = bundles.path(case["preset"], case["size_px"])
        work = (peak_by_stage, bundle, pictures[: case["batch"]], case["device"])
        try:
            case["peak_mib"] = in_own_process(*work)
        except VaradError as error:
            case["peak_mib"] = {}
            print(f"memory: {named(case)}: {error}")
    print("Peak memory up to and with each stage, MiB")
    columns = ("loaded", *Stages.IN_ORDER)
    rows = [[named(case), *(shown(case["peak_mib"].get(name)) for name in columns)] for case in cases]
    print_table(["device, preset, px, batch", *columns], rows)
    return cases


def settings(args: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Every device, size and batch."""
    for device in args.device:
        for size_px in args.sizes:
            for batch in args.batches:
                yield device, size_px, batch


def named(case: dict[str, Any]) -> str:
    return f"{case['device']} {case['preset']} {case['size_px']} {case['batch']}"
