"""VarAD beside anomalib's PatchCore, PaDiM and STFPM, on every set and over seeds: accuracy, time and memory.

All methods get the same feature weights, working size and training images: a seed draws `--limit-train` of a
set's good parts, and is the method's own seed too. Nothing is chosen by test labels. Each run (method, set,
seed) is a process of its own, so that its peak memory is its own. With --json a finished run is written at
once, and one that is there already, with equal settings, is not repeated.
"""

import argparse
import hashlib
import importlib.util
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from benchmarks.anomalib_peers import BACKBONE, PEERS
from benchmarks.peers import METHODS, VARAD_METHODS, create_method, method_settings
from benchmarks.rendered_set import NAME as BUTTONS
from benchmarks.rendered_set import write_buttons
from benchmarks.reporting import machine_facts, print_table, write_json
from station.worker import end_with_parent
from varad_core.alignment import fit_alignment
from varad_core.config import FramingName
from varad_core.data import ImageFiles, load_image
from varad_core.datasets import Dataset, find_sets, open_dataset
from varad_core.evaluate import Figures, measure
from varad_core.tiling import fit_framing
from varad_core.tokenizer import create_tokenizer
from varad_core.train import ALIGNMENT_SAMPLE
from varad_core.types import VaradError

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
DEFAULT_METHODS = ("station", "no prediction", "paper", *PEERS)
WARM_UP_IMAGES = 3
COSTS = ("fit_s", "ms_per_image", "peak_mib", "fitted_numbers")
ACCURACIES = tuple(name for name in Figures.__dataclass_fields__ if name not in COSTS)

Run = dict[str, Any]  # method, set, seed, settings, figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="a set, or a folder of sets")
    parser.add_argument("--sets", nargs="+", metavar="SET", help="default: all of them")
    parser.add_argument(
        "--buttons", type=int, metavar="SEED", help="one more set, the demo's buttons rendered: `buttons`"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(DEFAULT_METHODS), metavar="METHOD",
        help=f"default: {', '.join(DEFAULT_METHODS)}",
    )  # fmt: skip
    parser.add_argument("--image-size", type=int, default=256, metavar="PX")
    parser.add_argument(
        "--framing", choices=get_args(FramingName), default="square",
        help="for all methods; `tiles` keeps the pictures' aspect ratio, `auto` is `station train`'s choice",
    )  # fmt: skip
    parser.add_argument(
        "--ignore-left", type=int, default=0, metavar="PX",
        help="nothing counts that far from the left edge (fabric's own lies before 1200), for all methods; "
        "of sets whose parts are aligned it follows the part",
    )  # fmt: skip
    parser.add_argument("--limit-train", type=int, default=60, metavar="N", help="0: all")
    parser.add_argument(
        "--weights", type=Path, default=SHARED / "weights" / "resnet18_layers1to3.safetensors",
        help="of ResNet-18, for all methods",
    )  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.ignore_left < 0:
        raise SystemExit(f"--ignore-left {args.ignore_left}: give a number of pixels, 0 for none")
    with tempfile.TemporaryDirectory() as folder:
        return run_on(args, chosen_sets(args, Path(folder)))


def run_on(args: argparse.Namespace, sets: Mapping[Dataset, Path]) -> dict[str, Any]:
    if not args.weights.is_file():
        raise SystemExit(f"--weights {args.weights}: no such file; give ResNet-18's")
    if set(args.methods) - set(VARAD_METHODS) and importlib.util.find_spec("anomalib") is None:
        raise SystemExit(
            "accuracy: the peers need anomalib; `make bench NAME=accuracy` installs it, or choose "
            f"--methods {' '.join(VARAD_METHODS)}"
        )
    machine = machine_facts()
    kept = {run_key(one): one for one in read_runs(args.json)}
    jobs = [(seed, dataset, method) for seed in args.seeds for dataset in sets for method in args.methods]
    requested = []
    for index, (seed, dataset, method) in enumerate(jobs):
        one: Run = {"method": method, "set": dataset.name, "seed": seed}
        one["settings"] = run_settings(args, one, dataset, str(machine["cpu"]))
        found = kept.get(run_key(one))
        again = found is None or found["settings"] != one["settings"]
        if again:
            one["figures"] = in_own_process(args, one, sets[dataset])
            kept[run_key(one)] = one
        requested.append(kept[run_key(one)])
        print(f"[{index + 1}/{len(jobs)}] {described(requested[-1])}{'' if again else ' (kept)'}", flush=True)
        if args.json and again:
            results = {"runs": list(kept.values())}
            write_json(args.json, {"benchmark": "accuracy", "machine": machine, "results": results})
    print_tables(requested)
    return {"runs": list(kept.values())}


def chosen_sets(args: argparse.Namespace, folder: Path) -> dict[Dataset, Path]:
    """The sets to run on, and where they lie; rendered ones in `folder`."""
    try:
        only_buttons = args.buttons is not None and args.sets == [BUTTONS]
        roots = {} if only_buttons else {root.resolve().name: root for root in find_sets(args.data)}
        if args.buttons is not None:
            if BUTTONS in roots:
                raise SystemExit(f"--buttons: {args.data} has a set named {BUTTONS} already; rename that one")
            if args.sets is None or BUTTONS in args.sets:
                roots[BUTTONS] = write_buttons(folder, args.buttons)
        unknown = sorted(set(args.sets or ()) - set(roots))
        if unknown:
            raise SystemExit(f"--sets {' '.join(unknown)}: not in {args.data}, which has {', '.join(roots)}")
        sets = {open_dataset(roots[name]): roots[name] for name in args.sets or roots}
        for dataset in sets if args.ignore_left else ():
            width = load_image(dataset.train[0]).shape[1]
            if args.ignore_left >= width:
                raise SystemExit(
                    f"--ignore-left {args.ignore_left}: pictures of {dataset.name} are {width} wide"
                )
        return sets
    except VaradError as error:
        raise SystemExit(f"accuracy: {error}") from error


def run_key(one: Run) -> tuple[str, str, int]:
    return one["method"], one["set"], one["seed"]


def read_runs(path: Path | None) -> list[Run]:
    """What an earlier call wrote."""
    if path is None or not path.exists():
        return []
    try:
        runs: list[Run] = json.loads(path.read_text(encoding="utf-8"))["results"]["runs"]
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"--json {path}: holds no runs of this benchmark; name another file") from error
    return runs


def run_settings(args: argparse.Namespace, one: Run, dataset: Dataset, cpu: str) -> dict[str, Any]:
    """What a run's figures depend on, as JSON gives it back; of the code a hash."""
    settings = {
        "image_size": args.image_size,
        "limit_train": args.limit_train,
        "weights": hashlib.sha256(args.weights.read_bytes()).hexdigest()[:12],
        "images": [len(dataset.train), len(dataset.test)],
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "method": method_settings(one["method"], args.image_size, one["seed"], args.framing),
    }
    if args.buttons is not None and dataset.name == BUTTONS:
        renderer = b"".join(path.read_bytes() for path in sorted((ROOT / "drivers").glob("button*.py")))
        settings["buttons"] = [args.buttons, hashlib.sha256(renderer).hexdigest()[:12]]
    if args.ignore_left:
        settings["ignore_left_px"] = args.ignore_left
    # Of peers, too: VarAD's code reads their images and measures them.
    sources = sorted([*(ROOT / "varad_core").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])
    settings["code"] = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def in_own_process(args: argparse.Namespace, one: Run, root: Path) -> dict[str, float | None]:
    os.environ |= {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}  # of anomalib; inherited by the process
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent) as pool:
        job = pool.submit(
            measure_run, one["method"], root, one["seed"], args.image_size, args.framing, args.limit_train,
            args.weights, args.ignore_left,
        )  # fmt: skip
        try:
            return job.result()
        except (VaradError, BrokenProcessPool) as error:
            named = f"{one['method']} on {one['set']}, seed {one['seed']}"
            raise SystemExit(f"accuracy: {named}: {error}; finished runs are kept with --json") from error


def measure_run(
    method: str,
    root: Path,
    seed: int,
    image_size_px: int,
    framing: FramingName,
    limit_train: int,
    weights: Path,
    ignore_left_px: int,
) -> dict[str, float | None]:
    """Fit and test one method on one set.

    `fit_s` begins with the images in their files, and leaves out imports and reading the weights; `peak_mib`
    is the process's, of fitting and inspecting, without what the metrics take afterwards. Where PatchCore
    thins its bank it varies by half a GiB from run to run, with how the C library's heap comes to lie.
    """
    dataset = open_dataset(root)
    images = ImageFiles(dataset.draw_train(limit_train, seed))
    if framing == "auto":
        seen = [images[index] for index in range(min(len(images), ALIGNMENT_SAMPLE))]
        framing = fit_framing(framing, fit_alignment("auto", seen), seen)
    create_tokenizer(BACKBONE, image_size_px, weights)
    fresh = create_method(method, image_size_px, weights, seed, framing)
    ignored = None
    if ignore_left_px:
        ignored = np.zeros(images[0].shape[:2], np.bool_)
        ignored[:, :ignore_left_px] = True
    begun = time.perf_counter()
    fresh.fit(images, ignored)
    fit_s = time.perf_counter() - begun
    for entry in dataset.test[:WARM_UP_IMAGES]:
        fresh.inspect(load_image(entry.path))
    peak_mib = peak_memory_mib()
    figures = measure(dataset, fresh.inspect, lambda *_: None)
    return asdict(figures) | {
        "fit_s": fit_s, "peak_mib": peak_mib, "fitted_numbers": fresh.fitted_numbers()
    }  # fmt: skip


def peak_memory_mib() -> float | None:
    """This process's peak resident memory; None where the system does not tell.

    Not `ru_maxrss`, which on Linux begins with the parent's.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    found = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")]
    return found[0] if found else None


def described(one: Run) -> str:
    figures = one["figures"]
    accuracies = ", ".join(
        f"{name} {shown([figures[name]])}" for name in ("image_auroc", "pixel_auroc", "aupro")
    )
    costs = f"fit {figures['fit_s']:.0f} s, {figures['ms_per_image']:.0f} ms an image"
    return f"{one['method']:15} {one['set']:15} seed {one['seed']}  {accuracies}, {costs}"


def print_tables(runs: Sequence[Run]) -> None:
    """Every figure per set; the methods over all sets; by how much VarAD leads. Mean ± deviation of seeds."""
    methods, sets = (list(dict.fromkeys(one[key] for one in runs)) for key in ("method", "set"))
    print("\nEach set, mean ± standard deviation over seeds")
    rows = [
        [f"{name} {method}", *(shown(figures_of(runs, method, name, key)) for key in (*ACCURACIES, *COSTS))]
        for name in sets
        for method in methods
    ]
    print_table(["set, method", *ACCURACIES, *COSTS], rows)

    print("\nAll sets, image AUROC per set")
    rows = []
    for method in methods:
        per_set = [shown(figures_of(runs, method, name, "image_auroc")) for name in sets]
        rest = (shown(mean_over_sets(runs, method, key)) for key in ("pixel_auroc", "aupro", *COSTS))
        rows.append([method, shown(mean_over_sets(runs, method, "image_auroc")), *per_set, *rest])
    print_table(["method", "image_auroc", *sets, "pixel_auroc", "aupro", *COSTS], rows)

    if {"station", "patchcore"} <= set(methods):
        print("\nstation - patchcore, same seed and images")
        keys = ("image_auroc", "pixel_auroc", "aupro")
        rows = [[name, *(shown(differences(runs, name, key), "+") for key in keys)] for name in sets]
        print_table(["set", *keys], rows)


def figures_of(runs: Iterable[Run], method: str, name: str, key: str) -> list[float | None]:
    """One figure of a method on a set, by seed."""
    found = [one for one in runs if (one["method"], one["set"]) == (method, name)]
    return [one["figures"][key] for one in sorted(found, key=lambda one: int(one["seed"]))]


def mean_over_sets(runs: Sequence[Run], method: str, key: str) -> list[float | None]:
    """By seed, the mean of a figure over the sets that have it."""
    by_seed: Mapping[int, list[float]] = {
        one["seed"]: [] for one in sorted(runs, key=lambda one: one["seed"])
    }
    for one in runs:
        if one["method"] == method and one["figures"][key] is not None:
            by_seed[one["seed"]].append(one["figures"][key])
    return [float(np.mean(values)) if values else None for values in by_seed.values()]


def differences(runs: Sequence[Run], name: str, key: str) -> list[float | None]:
    """By seed, a figure of `station` less that of `patchcore` on a set."""
    pairs = zip(*(figures_of(runs, method, name, key) for method in ("station", "patchcore")), strict=True)
    return [None if ours is None or theirs is None else ours - theirs for ours, theirs in pairs]


def shown(values: Sequence[float | None], sign: str = "") -> str:
    """The mean ± standard deviation of a figure's values by seed; - without any."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    mean = float(np.mean(numbers))
    digits = 3 if abs(mean) <= 1 else 1 if abs(mean) < 1000 else 0
    spread = f" ± {np.std(numbers, ddof=1):.{digits}f}" if len(numbers) > 1 else ""
    return f"{mean:{sign}.{digits}f}{spread}"
