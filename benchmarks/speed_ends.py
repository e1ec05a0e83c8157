"""From a picture in memory to its score and map: VarAD beside PatchCore, and the model of the demo."""

import argparse
import importlib.util
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy import peak_memory_mib
from benchmarks.peers import create_method, method_config
from benchmarks.reporting import print_table
from benchmarks.speed_cases import (
    Bundles,
    ImageRgb,
    Stages,
    buttons,
    encoded,
    in_a_hurry,
    in_own_process,
    shown,
)
from benchmarks.turns import pair_ratio, take_turns
from station.demo.training import SIDE_PX as DEMO_PICTURE_PX
from varad_core.data import ImageFiles, load_image
from varad_core.datasets import open_dataset
from varad_core.inspector import Inspector
from varad_core.train import train

DEMO = Path(__file__).resolve().parents[1] / "station" / "demo"
SIZE_PX = 256
FIT_IMAGES = 20  # to fit VarAD on


def run_peer(args: argparse.Namespace, bundles: Bundles) -> dict[str, Any] | None:
    """VarAD `station` beside PatchCore, in pairs: the same image in the same round."""
    if bundles.weights is None or importlib.util.find_spec("anomalib") is None:
        missing = (
            "anomalib: pip install '.[bench]'" if bundles.weights else "ResNet-18 and its weights: --weights"
        )
        print(f"Beside PatchCore: left out, it needs {missing}")
        return None
    data = args.data if args.data.is_dir() else None
    if data is None:
        print(f"--data {args.data}: no such folder; rendered buttons instead")
    print(f"fitting PatchCore on {args.peer_train} images ...", flush=True)
    results = in_own_process(peer_times, data, args.peer_train, args.images, bundles.weights, args.rounds)
    print("End to end at {image_size_px} px on the CPU, {images} images of {source}".format(**results))
    rows = [
        ["station", shown(results["station_ms"]), shown(results["fastest_station_ms"])],
        ["patchcore", shown(results["patchcore_ms"]), shown(results["fastest_patchcore_ms"])],
        ["station / patchcore", shown(results["station_over_patchcore"]), ""],
    ]
    print_table(["method", "ms an image", "fastest"], rows)
    return results


def peer_times(data: Path | None, peer_train: int, images: int, weights: Path, rounds: int) -> dict[str, Any]:
    """Fit both and time them in turns.

    PatchCore is fitted first: VarAD's training has the C library keep freed memory (`keep_large_buffers`),
    and under that setting glibc 2.36 lets the heap grow without end while the coreset is drawn.
    """
    source, good, tested = peer_images(data, peer_train, images)
    theirs = create_method("patchcore", SIZE_PX, weights, 0)
    theirs.fit(good)
    config = in_a_hurry(method_config("station", SIZE_PX, 0))
    ours = train(good[:FIT_IMAGES], config, name="station", weights=weights)
    times_ms: dict[str, list[float]] = {"station": [], "patchcore": []}
    for image in tested:
        pair = {"station": partial(ours.inspect, image), "patchcore": partial(theirs.inspect, image)}
        for name, times in take_turns(pair, rounds).items():
            times_ms[name] += times
    return {
        "source": source, "image_size_px": SIZE_PX, "images": len(tested), "peer_train": len(good),
        "alignment": ours.alignment.name, "bank_numbers": theirs.fitted_numbers(),
        "peak_mib": peak_memory_mib(),
        **{f"{name}_ms": statistics.median(times) for name, times in times_ms.items()},
        **{f"fastest_{name}_ms": min(times) for name, times in times_ms.items()},
        "station_over_patchcore": pair_ratio(times_ms["station"], times_ms["patchcore"]),
    }  # fmt: skip


def peer_images(
    data: Path | None, peer_train: int, images: int
) -> tuple[str, Sequence[ImageRgb], list[ImageRgb]]:
    """A set's name, its good images to fit on and others to time; rendered buttons where there is no data."""
    if data is None:
        good = buttons(peer_train, DEMO_PICTURE_PX)
        return "rendered buttons", good, buttons(images, DEMO_PICTURE_PX, first=peer_train)
    dataset = open_dataset(data)
    tested = [load_image(one.path) for one in dataset.test[:images]]
    return dataset.name, ImageFiles(dataset.draw_train(peer_train, 0)), tested


def run_demo(args: argparse.Namespace, bundles: Bundles) -> list[dict[str, Any]]:
    """The model that ships and `station` at 256 px, on the same buttons in the same turns."""
    station = bundles.path("station", SIZE_PX)
    cases = [
        case
        for device in args.device
        for case in in_own_process(demo_times, DEMO, station, args.images, args.rounds, device)
    ]
    print(f"{args.images} rendered buttons of {DEMO_PICTURE_PX} px")
    rows = [
        [f"{case['device']} {case['case']}", shown(case["ms"]), shown(case["fastest_ms"])] for case in cases
    ]
    print_table(["case", "ms", "fastest"], rows)
    return cases


@torch.inference_mode()
def demo_times(
    demo_folder: Path, bundle: Path, images: int, rounds: int, device: str
) -> list[dict[str, Any]]:
    """End to end the demo's model and `station`; of the latter also what comes after the tokenizer."""
    demo = Inspector.load(demo_folder / "model.safetensors", trusted_keys=demo_folder, device=device)
    station = Inspector.load(bundle, trusted_keys=None, device=device)
    label = f"{station.config.tokenizer} {station.input_size_px} px"
    times_ms: dict[str, list[float]] = {}
    pictures = buttons(images, DEMO_PICTURE_PX)
    for image, picture in zip(pictures, encoded(pictures), strict=True):
        stages = Stages(station, [picture])
        stages.run_all()
        turns: dict[str, Callable[[], object]] = {
            f"demo {demo.model_id} end to end": partial(demo.inspect, image),
            f"{label} end to end": partial(station.inspect, image),
            f"{label} predictor and scoring": stages.judge,
        }
        for name, times in take_turns(turns, rounds, device).items():
            times_ms.setdefault(name, []).extend(times)
    return [
        {"device": device, "case": name, "ms": statistics.median(times), "fastest_ms": min(times)}
        for name, times in times_ms.items()
    ]
