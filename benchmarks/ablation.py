"""The station preset with one thing changed at a time: what each part of it is worth.

The runs are `benchmarks.accuracy`'s, on the same sets, images and seeds.
"""

import argparse
from typing import Any

import numpy as np

from benchmarks import accuracy
from benchmarks.accuracy import figures_of, mean_over_sets, shown
from benchmarks.reporting import print_table
from benchmarks.variants import VARIANTS

KEYS = ("image_auroc", "pixel_auroc", "aupro")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    accuracy.add_arguments(parser)
    parser.set_defaults(methods=["station", *VARIANTS], seeds=[0])


def run(args: argparse.Namespace) -> dict[str, Any]:
    results = accuracy.run(args)
    runs = [one for one in results["runs"] if one["method"] in args.methods and one["seed"] in args.seeds]
    sets = list(dict.fromkeys(one["set"] for one in runs))
    base = {key: np.array(mean_over_sets(runs, "station", key), float) for key in KEYS}
    rows = []
    for method in args.methods:
        says = VARIANTS[method].says if method in VARIANTS else "the preset"
        means = {key: np.array(mean_over_sets(runs, method, key), float) for key in KEYS}
        per_set = [shown(figures_of(runs, method, name, "image_auroc")) for name in sets]
        change = "-"
        if "station" in args.methods:
            change = shown((means["image_auroc"] - base["image_auroc"]).tolist(), "+")
        rows.append([method, *(shown(means[key].tolist()) for key in KEYS), change, *per_set, says])
    print("\nImage AUROC, pixel AUROC and AUPRO: means over sets; the change is of image AUROC")
    print_table(["variant", *KEYS, "change", *sets, "what"], rows)
    return results
