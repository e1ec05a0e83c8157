"""`python -m varad_core.pretraining --teacher FILE`: make the weights of the `embedded` tokenizer."""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from varad_core.embedded_net import COARSE, FINE, WEIGHTS
from varad_core.pretraining.distill import distill
from varad_core.pretraining.targets import BATCH, make_targets
from varad_core.pretraining.teacher import ResNet50V2
from varad_core.types import VaradError


def main(argv: Sequence[str] | None = None) -> int:
    """Render, distil, write; an interrupted run, started again with the same arguments, goes on."""
    parser = argparse.ArgumentParser(prog="python -m varad_core.pretraining", description=__doc__)
    parser.add_argument(
        "--teacher", type=Path, required=True, help="ResNet-50 v2, stages 1 to 3, .safetensors"
    )
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="weights to write (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("pretraining-data"), help="folder for targets")
    parser.add_argument("--images", type=int, default=1920, help=f"a multiple of {BATCH} (%(default)s)")
    parser.add_argument("--steps", type=int, default=1600, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the images and the training (%(default)s)")
    args = parser.parse_args(argv)
    if args.images < 128 or args.images % BATCH:
        parser.error(f"--images {args.images}: need a multiple of {BATCH}, at least 128")
    begun = time.process_time()
    try:
        teacher = ResNet50V2(args.teacher)
        teacher_sha256 = hashlib.sha256(args.teacher.read_bytes()).hexdigest()
        work = args.work / f"teacher-{teacher_sha256[:12]}"
        targets = make_targets(teacher, work, seed=args.seed, count=args.images, channels=(FINE, COARSE))
        net, explained = distill(teacher, targets, work, seed=args.seed, steps=args.steps)
    except VaradError as error:
        print(f"pretraining: {error}", file=sys.stderr)
        return 2
    from safetensors.torch import save_file

    facts = {
        "images": args.images,
        "steps": args.steps,
        "seed": args.seed,
        "teacher_sha256": teacher_sha256,
        "torch": torch.__version__,
        "explained_fine": round(explained["fine"], 4),
        "explained_coarse": round(explained["coarse"], 4),
    }
    tensors = {name: tensor.half().contiguous() for name, tensor in net.state_dict().items()}
    save_file(tensors, args.out, {"facts": json.dumps(facts)})
    facts["cpu_s"] = round(time.process_time() - begun)
    print(json.dumps(facts, indent=2))
    print(f'{args.out}: WEIGHTS_SHA256 = "{hashlib.sha256(args.out.read_bytes()).hexdigest()}"')
    return 0


if __name__ == "__main__":
    sys.exit(main())
