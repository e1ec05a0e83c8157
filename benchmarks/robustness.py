"""What a change of light, pose, focus or noise after the training does to the verdicts.

The change is applied to the test images, good and defective alike. AUROC says whether defects still stand
out; the share of good parts above the reject limit, fitted before the change, is what the operator feels.
Each set is trained once without varied copies of its training images and once with.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reporting import print_table
from drivers.buttons import DEFECTS, part_truth
from station.demo.training import IMAGE_SIZE_PX, TOKENIZER, demo_part
from varad_core.augmentation import move, sense
from varad_core.config import TokenizerName, default_config
from varad_core.data import ImageFiles, load_image
from varad_core.datasets import open_dataset
from varad_core.inspector import score_images
from varad_core.metrics import auroc
from varad_core.train import train

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
DEMO = "demo"  # rendered buttons with the demo's tokenizer; every other set with ResNet-18
DEMO_SEEDS = 7, 70_021  # of the lines that train and test

ImageRgb = NDArray[np.uint8]
Change = Callable[[ImageRgb, np.random.Generator], ImageRgb]

CHANGES: dict[str, Change] = {
    "none": lambda image, rng: image,
    "light -20 %": lambda image, rng: sense(image, rng, gain=0.8),
    "light +20 %": lambda image, rng: sense(image, rng, gain=1.2),
    "turned -5 deg": lambda image, rng: move(image, turn_deg=-5),
    "turned +5 deg": lambda image, rng: move(image, turn_deg=5),
    "scale -5 %": lambda image, rng: move(image, scale=0.95),
    "scale +5 %": lambda image, rng: move(image, scale=1.05),
    "blur 1 px": lambda image, rng: sense(image, rng, blur_px=1.0),
    "noise 5/255": lambda image, rng: sense(image, rng, noise=5.0),
}


@dataclass(frozen=True, slots=True)
class Images:
    """Good parts to train on; images to test on, and which of them are defective."""

    train: Sequence[ImageRgb]
    test: Sequence[ImageRgb]
    defective: NDArray[np.bool_]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sets", nargs="+", default=[DEMO, "pill", "magnetic_tile"])
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of sets")
    parser.add_argument(
        "--weights", type=Path, default=SHARED / "weights" / "resnet18_layers1to3.safetensors",
        help="of ResNet-18, for the sets",
    )  # fmt: skip
    parser.add_argument("--limit-train", type=int, default=60, help="good parts to train on (default: 60)")
    parser.add_argument("--limit-test", type=int, default=100, help="half good (default: 100)")
    parser.add_argument("--steps", type=int, default=0, help="optimiser steps (default: the preset's)")
    parser.add_argument(
        "--variants", type=int, nargs="+", default=[0, 2], help="varied copies (default: 0 2)"
    )
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> dict[str, Any]:
    rows = [row for name in args.sets for variants in args.variants for row in measure(args, name, variants)]
    header = ["set", "change"]
    for variants in args.variants:
        header += [f"AUROC x{variants}", f"good rejected x{variants}", f"defects rejected x{variants}"]
    cells: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        cells.setdefault((row["set"], row["change"]), []).extend(
            [f"{row['auroc']:.3f}", f"{row['good_rejected']:.1%}", f"{row['defects_rejected']:.1%}"]
        )
    print_table(header, [[*key, *values] for key, values in cells.items()])
    settings = ("limit_train", "limit_test", "steps", "seed")
    return {"settings": {key: getattr(args, key) for key in settings}, "rows": rows}


def measure(args: argparse.Namespace, name: str, variants: int) -> Iterator[dict[str, Any]]:
    """Train once, then test under every change."""
    images = demo(args) if name == DEMO else labelled(args, name)
    tokenizer: TokenizerName
    tokenizer, size_px, weights = "resnet18", 256, args.weights
    if name == DEMO:
        tokenizer, size_px, weights = TOKENIZER, IMAGE_SIZE_PX, None
    config = default_config("station", tokenizer, size_px, seed=args.seed)
    steps = args.steps or config.training.steps
    config = replace(config, training=replace(config.training, steps=steps, variants=variants))
    inspector = train(images.train, config, name=name, weights=weights)
    limits = inspector.limits
    print(f"{name}, {variants} variants: trained in {inspector.provenance['fit_s']:.0f} s", flush=True)
    for change, apply in CHANGES.items():
        changed = [apply(image, np.random.default_rng([1, i])) for i, image in enumerate(images.test)]
        scores = score_images(inspector, changed)
        above = scores > limits.reject
        yield {
            "set": name, "variants": variants, "change": change, "bound": limits.false_reject_bound,
            "auroc": auroc(images.defective, scores),
            "good_rejected": float(above[~images.defective].mean()),
            "defects_rejected": float(above[images.defective].mean()),
        }  # fmt: skip


def labelled(args: argparse.Namespace, name: str) -> Images:
    """A set's images, as many good as defective ones to test on, drawn by the seed."""
    dataset = open_dataset(args.data / name)
    good = [one for one in dataset.test if not one.defect]
    bad = [one for one in dataset.test if one.defect]
    rng = np.random.default_rng(args.seed)
    count = min(args.limit_test // 2, len(good), len(bad))
    drawn = [kind[i] for kind in (good, bad) for i in sorted(rng.permutation(len(kind))[:count])]
    train_images = ImageFiles(dataset.draw_train(args.limit_train, args.seed))
    test = [load_image(one.path) for one in drawn]
    return Images(train_images, test, np.array([bool(one.defect) for one in drawn]))


def demo(args: argparse.Namespace) -> Images:
    """Rendered buttons: good ones of one seed to train on; of another, good and defective ones to test on."""
    train_seed, test_seed = DEMO_SEEDS
    wanted = {
        "": args.limit_test // 2,
        **dict.fromkeys(DEFECTS, math.ceil(args.limit_test / 2 / len(DEFECTS))),
    }
    drawn: list[tuple[int, str, float]] = []
    index = 0
    while any(wanted.values()):
        defect, severity = part_truth(seed=test_seed, index=index, defect_rate=0.6)
        if wanted[defect]:
            wanted[defect] -= 1
            drawn.append((index, defect, severity))
        index += 1
    test = [demo_part(test_seed, index, (defect, severity)).image_rgb for index, defect, severity in drawn]
    good = [demo_part(train_seed, index).image_rgb for index in range(args.limit_train)]
    return Images(good, test, np.array([bool(defect) for _, defect, _ in drawn]))
