"""How fast the detector is: stage by stage, beside PatchCore, and beside what the machine could do.

    part     what
    stages   ms an image of each stage, both presets; `paper` is the eager reference
    peer     `station` beside anomalib's PatchCore, end to end on the same images (on the CPU)
    demo     the demo's model end to end; `station` at 256 px, predictor and scoring together
    latency  the same at 1022 px, every way: with and without CUDA's graph, by each recurrence, `paper`;
             without CUDA only if asked for
    growth   the predictor's time over the number of tokens
    floor    the recurrence, forward and backward, beside the floors of memory and of arithmetic
    memory   peak memory up to each stage, a process per case

Each case runs in a process of its own. What is compared takes turns round by round (`benchmarks.turns`);
figures are medians over the rounds, ratios medians of the ratios within a round.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.reporting import print_facts
from benchmarks.speed_cases import Bundles
from benchmarks.speed_ends import run_demo, run_peer
from benchmarks.speed_floor import run_floor, run_growth
from benchmarks.speed_latency import run_latency
from benchmarks.speed_stages import run_memory, run_stages
from varad_core.config import TokenizerName
from varad_core.types import VaradError

SHARED = Path(__file__).resolve().parents[2] / "shared"
PARTS: dict[str, Callable[[argparse.Namespace, Bundles], Any]] = {
    "stages": run_stages,
    "peer": run_peer,
    "demo": run_demo,
    "latency": run_latency,
    "growth": run_growth,
    "floor": run_floor,
    "memory": run_memory,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", nargs="+", choices=tuple(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="default: 7")
    parser.add_argument(
        "--device", nargs="+", default=["cpu", *(["cuda"] if torch.cuda.is_available() else [])],
        help="default: cpu, and cuda where there is one",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="of the CPU; default: torch's own choice"
    )
    parser.add_argument(
        "--weights", type=Path, default=SHARED / "weights" / "resnet18_layers1to3.safetensors",
        help="of ResNet-18; without the file the tokenizer is `embedded`",
    )  # fmt: skip
    parser.add_argument(
        "--tokenizer", choices=get_args(TokenizerName),
        help="default: resnet18, or embedded without its weights; of a ViT they are drawn at random",
    )  # fmt: skip
    stages = parser.add_argument_group("stages and memory")
    stages.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024], metavar="PX")
    stages.add_argument("--batches", type=int, nargs="+", default=[1, 8], metavar="B")
    stages.add_argument("--picture-px", type=int, default=1024, metavar="PX", help="side of the pictures")
    ends = parser.add_argument_group("peer and demo")
    ends.add_argument("--images", type=int, default=20, metavar="N", help="to time on (default: 20)")
    ends.add_argument("--data", type=Path, default=SHARED / "data" / "pill", help="the peer's set")
    ends.add_argument(
        "--peer-train", type=int, default=60, metavar="N", help="images in PatchCore's bank (default: 60)"
    )
    latency = parser.add_argument_group("latency")
    latency.add_argument("--latency-px", type=int, default=1022, metavar="PX", help="default: 1022")
    growth = parser.add_argument_group("growth")
    growth.add_argument("--grid-sizes", type=int, nargs="+", default=[256, 512, 768, 1024], metavar="PX")
    floor = parser.add_argument_group("floor")
    floor.add_argument("--states", type=int, nargs="+", default=[16, 64], metavar="N")
    floor.add_argument("--length", type=int, default=4096, metavar="L")
    floor.add_argument("--channels", type=int, default=768, metavar="D")


def run(args: argparse.Namespace) -> dict[str, Any]:
    if not torch.cuda.is_available() and any(device.startswith("cuda") for device in args.device):
        raise SystemExit(f"--device {' '.join(args.device)}: torch sees no CUDA device; use cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    tokenizer: TokenizerName = args.tokenizer or ("resnet18" if args.weights.is_file() else "embedded")
    if tokenizer == "resnet18" and not args.weights.is_file():
        raise SystemExit(f"--weights {args.weights}: no such file; give ResNet-18's")
    setting = {
        "tokenizer": tokenizer,
        "devices": " ".join(args.device),
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),  # see `in_own_process`
        "rounds": args.rounds,
    }
    print_facts(setting)
    if args.tokenizer is None and tokenizer == "embedded":
        print(f"--weights {args.weights}: no such file; measured with `embedded`, and without the peer\n")
    results: dict[str, Any] = {"setting": setting}
    with tempfile.TemporaryDirectory() as folder:
        bundles = Bundles(Path(folder), tokenizer, args.weights if tokenizer == "resnet18" else None)
        usual = [name for name in PARTS if name != "latency" or torch.cuda.is_available()]
        for name in args.only or usual:
            try:
                results[name] = PARTS[name](args, bundles)
            except (VaradError, RuntimeError) as error:  # the others took their time and are kept
                results[name] = None
                print(f"{name}: left out: {error}")
            print(flush=True)
    return results
