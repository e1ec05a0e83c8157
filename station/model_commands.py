"""`station train` and `station evaluate`: arguments in, `varad_core` called, figures out."""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from varad_core.types import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from varad_core.config import TokenizerName, VaradConfig
    from varad_core.inspector import Inspector

DEFAULT_KEYS = Path("keys")
PRESET_STEPS_HELP = "optimiser steps (default: the preset's)"


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the two commands."""
    train = subparsers.add_parser("train", help="train a model on pictures of good parts")
    source = train.add_mutually_exclusive_group(required=True)
    source.add_argument("--good", type=Path, metavar="DIR", help="folder of pictures of good parts")
    source.add_argument("--demo", action="store_true", help="train the demo's model on rendered parts")
    train.add_argument(
        "--ignore", type=Path, metavar="MASK",
        help="picture drawn over that of the first good part (by name): white where nothing counts",
    )  # fmt: skip
    train.add_argument("--recipe", metavar="NAME", help="the product; required with --good")
    train.add_argument("--out", type=Path, metavar="FILE", help="bundle to write (default: NAME.safetensors)")
    train.add_argument("--replace", action="store_true", help="write over the bundle where there is one")
    train.add_argument(
        "--keys", type=Path, default=DEFAULT_KEYS, metavar="DIR",
        help="folder of the signing key, made on first use (default: keys)",
    )  # fmt: skip
    train.add_argument(
        "--parts", type=int, default=400, metavar="N", help="with --demo: good parts to render"
    )
    _add_model_arguments(train)
    train.set_defaults(func=run_train)

    evaluate = subparsers.add_parser("evaluate", help="train and test on a labelled set of pictures")
    evaluate.add_argument(
        "data", type=Path, metavar="SET",
        help="its folder, as MVTec AD (train/good, test/*, ground_truth/*), BTAD or VisA lay it out, "
        "or with just good and bad in it",
    )  # fmt: skip
    evaluate.add_argument(
        "--limit-train", type=int, default=0, metavar="N",
        help="use at most N training images, drawn by --seed",
    )  # fmt: skip
    evaluate.add_argument("--json", action="store_true", help="print nothing but the JSON line")
    _add_model_arguments(evaluate)
    evaluate.set_defaults(func=run_evaluate)


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    from varad_core.config import AlignmentName, FramingName, Preset, TokenizerName

    parser.add_argument("--preset", choices=get_args(Preset), default="station")
    parser.add_argument(
        "--tokenizer", choices=get_args(TokenizerName), help="default: embedded; of --demo, descriptors"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="the tokenizer's weights; default: download them"
    )
    parser.add_argument(
        "--image-size", type=int, metavar="PX",
        help="side of the square, or of a tile, that the tokenizer sees (default: 256; of --demo, 272)",
    )  # fmt: skip
    parser.add_argument(
        "--framing", choices=get_args(FramingName),
        help="square: the whole picture, squeezed into one square; tiles: at its own aspect ratio, covered "
        "with overlapping squares; auto: tiles for parts at least twice as long as wide (default; of "
        "--preset paper, square)",
    )  # fmt: skip
    parser.add_argument(
        "--resolutions", type=int, nargs="+", default=[], metavar="PX",
        help="with --framing tiles: length the picture's shorter side is brought to; several are fused "
        "(default: --image-size)",
    )  # fmt: skip
    parser.add_argument(
        "--overlap", type=float, metavar="SHARE",
        help="with --framing tiles: share of a tile that its neighbour sees as well (default: 0.375)",
    )  # fmt: skip
    parser.add_argument("--alignment", choices=get_args(AlignmentName), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help=PRESET_STEPS_HELP)
    parser.add_argument("--minutes", type=float, help="wall time of the training loop, instead of steps")
    parser.add_argument(
        "--false-reject", type=float, metavar="SHARE",
        help="at most this share of good parts above the reject limit, e.g. 0.02 "
        "(default: as few as the held-out parts support)",
    )  # fmt: skip
    parser.add_argument(
        "--holdout", type=float, metavar="SHARE",
        help="share of the good parts held out for calibration and limits (default: 0.4)",
    )  # fmt: skip
    parser.add_argument(
        "--variants", type=int, metavar="N",
        help="train with N varied copies of each good part as well: light, pose, focus, noise (default: 0; "
        "of --demo, 2)",
    )  # fmt: skip
    parser.add_argument(
        "--light", choices=("kept", "levelled"),
        help="levelled: pictures are brought to the training parts' brightness, within a third; kept: how "
        "bright a part is as a whole counts (default: levelled with embedded and descriptors, else kept; of "
        "--preset paper, kept)",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu or cuda")


def _config(arguments: argparse.Namespace) -> "VaradConfig":
    """The configuration that the arguments ask for.

    Raises:
        DataError: a value is out of range.
    """
    from station.demo.training import IMAGE_SIZE_PX, TOKENIZER, VARIANTS
    from varad_core.config import default_config

    tokenizer: TokenizerName
    demo = getattr(arguments, "demo", False)
    tokenizer, size_px, variants = (TOKENIZER, IMAGE_SIZE_PX, VARIANTS) if demo else ("embedded", 256, 0)
    try:
        config = default_config(
            arguments.preset,
            arguments.tokenizer or tokenizer,
            size_px if arguments.image_size is None else arguments.image_size,
            arguments.alignment,
            arguments.seed,
        )
        config = _framed(config, arguments)
        if arguments.variants is not None:
            variants = arguments.variants
        training = replace(config.training, variants=variants)
        if arguments.minutes is not None:
            training = replace(training, steps=arguments.steps or 0, minutes=arguments.minutes)
        elif arguments.steps is not None:
            training = replace(training, steps=arguments.steps)
        if arguments.false_reject is not None:
            training = replace(training, false_reject_target=arguments.false_reject)
        if arguments.holdout is not None:
            training = replace(training, holdout_share=arguments.holdout)
        level_light = config.level_light if arguments.light is None else arguments.light == "levelled"
        return replace(config, training=training, level_light=level_light)
    except ValueError as error:
        raise DataError(f"arguments: {error}") from error


def _framed(config: "VaradConfig", arguments: argparse.Namespace) -> "VaradConfig":
    """The configuration with its framing; raises ValueError where the arguments do not fit together."""
    resolutions_px, overlap = tuple(arguments.resolutions), arguments.overlap
    if arguments.framing != "tiles" and (resolutions_px or overlap is not None):
        raise ValueError("--resolutions and --overlap are for --framing tiles; add it, or leave them out")
    config = replace(config, framing=arguments.framing or config.framing, resolutions_px=resolutions_px)
    return config if overlap is None else replace(config, tile_overlap=overlap)


def run_train(arguments: argparse.Namespace) -> int:
    """`station train`."""
    from station.sections import LONGEST_RECIPE
    from varad_core.bundle import ensure_signing_key, require_writable
    from varad_core.data import good_parts
    from varad_core.ignoring import load_mask
    from varad_core.limits import require_parts
    from varad_core.train import train

    config = _config(arguments)
    if arguments.demo:
        if arguments.ignore:
            raise DataError("train: --ignore is for --good; the demo's model looks at whole parts")
        from station.demo.training import train_demo

        out = arguments.out or Path("demo.safetensors")
        require_writable(out, replace=arguments.replace)
        require_parts(arguments.parts, config.training)
        key = ensure_signing_key(arguments.keys)
        with _progress_bar(quiet=False) as progress:
            print(train_demo(config, arguments.parts, out, key, progress))
        return 0
    if not arguments.recipe:
        raise DataError("train: --good needs --recipe NAME, the product the model is for")
    if len(arguments.recipe) > LONGEST_RECIPE:
        raise DataError(f"--recipe: {len(arguments.recipe)} characters, at most {LONGEST_RECIPE}")
    out = arguments.out or Path(f"{arguments.recipe}.safetensors")
    require_writable(out, replace=arguments.replace)
    images = good_parts(arguments.good)
    ignored = load_mask(arguments.ignore, images.paths[0]) if arguments.ignore else None
    key = ensure_signing_key(arguments.keys)
    with _progress_bar(quiet=False) as progress:
        inspector = train(
            images,
            config,
            name=arguments.recipe,
            weights=arguments.weights,
            progress=progress,
            device=arguments.device,
            ignored=ignored,
        )
    model_id = inspector.save(out, key)
    print(f"{out}: model {model_id}")
    _tell(inspector, images[0], arguments.ignore)
    print(
        f"to run it, in the line's configuration: model.bundle: {out}, model.trusted_keys: {arguments.keys}"
    )
    return 0


def _tell(inspector: "Inspector", first_rgb: "NDArray[np.uint8]", mask: Path | None) -> None:
    """What training made of the parts, of which `first_rgb` is one, and what would make it better."""
    from varad_core.ignoring import PaintedOver, widened
    from varad_core.limits import next_bound

    limits, facts, training = inspector.limits, inspector.provenance, inspector.config.training
    print(f"{facts['good_parts']} good parts, {facts['fit_s']:.0f} s")
    if isinstance(inspector.alignment, PaintedOver):
        share = widened(inspector.alignment.ignored, inspector.framing.beside_px).mean()
        print(f"{share:.0%} of what the model looks at does not count ({mask})")
        if not inspector.alignment.turns:
            print("the region does not turn with the part: nothing on these parts tells how they are turned")
    framing = inspector.config.framing
    print(
        f"alignment {inspector.alignment.name}, framing {framing}, recheck above {limits.recheck:.3f}, "
        f"reject above {limits.reject:.3f}"
    )
    if inspector.alignment.name == "none" and not training.variants:
        print("parts are not aligned: where they may turn or move, train with --variants 2")
    if framing == "tiles":
        layers = inspector.framing.layers(inspector.align(first_rgb))
        squares = sum(len(grid.corners) for _, grid in layers)
        print(f"{squares} squares a picture, each inspected; --framing square makes it one, and sees less")
    print(
        f"at most {limits.false_reject_bound:.1%} of good parts above the reject limit "
        f"({limits.confidence:.0%} confidence, {facts['held_out_parts']} held-out parts)"
    )
    if (more := next_bound(int(facts["good_parts"]), training)) is not None:
        print(f"{more[1]} more good parts would support {more[0]:.0%}")
    recheck_share = 1 - training.recheck_quantile
    print(f"about {recheck_share:.0%} of good parts above the recheck limit; only PASS goes to the good lane")


def run_evaluate(arguments: argparse.Namespace) -> int:
    """`station evaluate`."""
    import json
    from dataclasses import asdict

    from varad_core.datasets import open_dataset
    from varad_core.evaluate import evaluate

    config = _config(arguments)
    dataset = open_dataset(arguments.data)
    with _progress_bar(quiet=arguments.json) as progress:
        figures, inspector = evaluate(
            dataset,
            config,
            weights=arguments.weights,
            limit_train=arguments.limit_train,
            progress=progress,
            device=arguments.device,
        )
    if not arguments.json:
        found = f"alignment {inspector.alignment.name}, framing {inspector.config.framing}"
        print(f"{dataset.name} ({dataset.layout}): {found}, {inspector.limits}")
    trained = {key: inspector.provenance[key] for key in ("fit_s", "parameters")}
    print(json.dumps(asdict(figures) | trained))
    return 0


class _progress_bar:  # noqa: N801 - reads as a function
    """A tqdm bar per stage, on stderr."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.stage = ""
        self.bar: Any = None

    def __enter__(self) -> Callable[[str, int, int, float], None]:
        return self.update

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, stage: str, done: int, total: int, loss: float) -> None:
        """See `varad_core.train.Progress`."""
        from tqdm import tqdm

        if stage != self.stage:
            if self.bar is not None:
                self.bar.close()
            self.stage = stage
            self.bar = tqdm(total=total, desc=stage, disable=self.quiet or None, mininterval=0.5)
        self.bar.update(done - self.bar.n)
        if not math.isnan(loss):
            self.bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
