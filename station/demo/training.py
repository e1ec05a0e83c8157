"""Trains the demo's model on rendered good parts, judges it on parts of other seeds, and writes both down.

The lines that train and test have different seeds; TEST_SEED was used for nothing else.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from drivers.buttons import DEFECTS, RenderedPart, part_truth, render_part
from varad_core.config import TokenizerName, VaradConfig

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from varad_core.inspector import Inspector

SIDE_PX = 512
TOKENIZER: TokenizerName = "descriptors"
IMAGE_SIZE_PX = 272  # more pixels show more of a hair-thin scratch, and take longer
VARIANTS = 2  # copies of each part in other light, pose and focus: a lamp may age, a lens be touched
TEST_SEED = 70_007
TEST_GOOD = 240
TEST_PER_DEFECT = 40
NAME = "button wood"


def demo_part(seed: int, index: int, truth: tuple[str, float] = ("", 0.0)) -> RenderedPart:
    """A button as the demo's camera takes it, good unless `truth` names a defect and its severity."""
    return render_part(
        seed=seed, index=index, defect_rate=0.0, width_px=SIDE_PX, height_px=SIDE_PX, truth=truth
    )


def judge(inspector: "Inspector", seed: int, good: int, per_defect: int) -> dict[str, object]:
    """Figures on a simulated line of another seed, its classes evened out."""
    from varad_core.metrics import auroc

    scores: dict[str, list[float]] = {name: [] for name in ("", *DEFECTS)}
    wanted = {"": good, **dict.fromkeys(DEFECTS, per_defect)}
    index = 0
    while any(len(scores[name]) < wanted[name] for name in wanted):
        defect, severity = part_truth(seed=seed, index=index, defect_rate=0.6)
        if len(scores[defect]) < wanted[defect]:
            part = demo_part(seed, index, (defect, severity))
            scores[defect].append(inspector.inspect(part.image_rgb).score)
        index += 1

    def against_good(values: Sequence[float]) -> float:
        both = np.array([*scores[""], *values])
        return auroc(np.arange(len(both)) >= len(scores[""]), both)

    limits = inspector.limits
    defective = [score for name in DEFECTS for score in scores[name]]
    return {
        "test_seed": seed,
        "test_good": good,
        "test_defective": len(defective),
        "image_auroc": against_good(defective),
        "class_auroc": {name: against_good(scores[name]) for name in DEFECTS},
        "false_reject_rate": float(np.mean(np.array(scores[""]) > limits.reject)),
        "recheck_or_reject_of_good": float(np.mean(np.array(scores[""]) > limits.recheck)),
        "caught_by_reject": {
            name: float(np.mean(np.array(scores[name]) > limits.reject)) for name in DEFECTS
        },
    }


def train_demo(
    config: VaradConfig,
    parts: int,
    out: Path,
    signing_key: "Ed25519PrivateKey",
    progress: Callable[[str, int, int, float], None],
) -> str:
    """Train, judge, and write the bundle, its public key and `CARD.md` beside it. Returns the card.

    Raises:
        VaradError: see `varad_core.train.train` and `Inspector.save`.
    """
    from varad_core.bundle import public_hex
    from varad_core.train import train

    images = []
    for index in range(parts):
        progress("render", index + 1, parts, math.nan)
        images.append(demo_part(config.training.seed, index).image_rgb)
    inspector = train(images, config, name=NAME, progress=progress)
    figures = judge(inspector, TEST_SEED, TEST_GOOD, TEST_PER_DEFECT)
    model_id = inspector.save(out, signing_key, figures)
    (out.parent / "demo.pub").write_text(public_hex(signing_key) + "\n")
    text = card(inspector, figures, model_id, out.stat().st_size)
    (out.parent / "CARD.md").write_text(text)
    return text


def card(inspector: "Inspector", figures: Mapping[str, object], model_id: str, size_bytes: int) -> str:
    """The model card, in Markdown."""
    facts, limits = inspector.provenance, inspector.limits
    class_auroc, caught = figures["class_auroc"], figures["caught_by_reject"]
    assert isinstance(class_auroc, dict)
    assert isinstance(caught, dict)
    rows = "\n".join(f"| {name} | {class_auroc[name]:.3f} | {caught[name]:.0%} |" for name in DEFECTS)
    return f"""# {inspector.model_name}

The demo's model, made by `station train --demo --seed {facts["seed"]}`. It knows rendered buttons and nothing
else.

| | |
|---|---|
| model | {model_id}, preset {inspector.config.preset}, tokenizer {inspector.config.tokenizer} |
| trained on | {facts["good_parts"]} rendered good parts, seed {facts["seed"]} |
| of these | {facts["fitted_parts"]} for the predictor, {facts["held_out_parts"]} for calibration and limits |
| varied copies of each | {inspector.config.training.variants}: light, pose, focus, noise |
| image | {inspector.input_size_px} px after alignment ({inspector.alignment.name}) |
| size | {facts["parameters"]:,} parameters, {size_bytes / 1e6:.1f} MB |
| limits | recheck above {limits.recheck:.3f}, reject above {limits.reject:.3f} |
| bound | at most {limits.false_reject_bound:.1%} of good parts rejected, {limits.confidence:.0%} sure |

Tested on {figures["test_good"]} good and {figures["test_defective"]} defective parts of seed
{figures["test_seed"]}, used for nothing else, severities from barely visible to gross:

| | |
|---|---|
| image AUROC | {figures["image_auroc"]:.3f} |
| good parts rejected | {figures["false_reject_rate"]:.1%} |
| good parts rechecked or rejected | {figures["recheck_or_reject_of_good"]:.1%} |

| defect | AUROC | rejected |
|---|---|---|
{rows}
"""
