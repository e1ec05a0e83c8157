"""The demo's buttons as one more set to measure on, in MVTec AD's layout, with masks."""

from pathlib import Path

import cv2
import numpy as np

from drivers.buttons import DEFECTS, RenderedPart
from station.demo.training import demo_part

NAME = "buttons"
TRAIN, GOOD, EACH_DEFECT = 160, 96, 12


def write_buttons(folder: Path, seed: int) -> Path:
    """Render good buttons to train on, and good and defective ones to test on; returns the set's folder.

    Half of the defects of a kind are of the fainter half, 0 barely visible to 1 gross.
    """
    root = folder / NAME
    severity = np.random.default_rng(seed)
    for index in range(TRAIN):
        _write(root / "train" / "good", index, demo_part(seed, index))
    for index in range(TRAIN, TRAIN + GOOD):
        _write(root / "test" / "good", index, demo_part(seed, index))
    for kind, defect in enumerate(DEFECTS):
        for place in range(EACH_DEFECT):
            index = TRAIN + GOOD + kind * EACH_DEFECT + place
            part = demo_part(seed, index, (defect, (place + severity.random()) / EACH_DEFECT))
            _write(root / "test" / defect, index, part)
            masks = root / "ground_truth" / defect
            masks.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(masks / f"{index:04d}_mask.png"), part.mask.astype(np.uint8) * 255)
    return root


def _write(folder: Path, index: int, part: RenderedPart) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{index:04d}.png"), cv2.cvtColor(part.image_rgb, cv2.COLOR_RGB2BGR))
