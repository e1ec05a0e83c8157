"""How a picture was taken: light, focus, and where the part lies in it, against the good parts of training.

What makes good parts fail is often not the parts: a lamp ages, a lens is touched, a mount slips. The model
then judges something that it was not trained on, and says so here, whatever the score is.
"""

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from varad_core.alignment import Aligned
from varad_core.ignoring import widened

Usual = Mapping[str, tuple[float, float]]
"""Condition -> its median over the training parts, and how far from it a median of other parts is no news."""

MIDDLE_PX = 512  # of a larger picture's sides: enough to see whether it is sharp, and how bright
SPREADS = 2.5  # of the training parts, that are no news
AT_LEAST = {  # what no line need be told of, however alike the training parts were
    "light": math.log(1.08),
    "sharpness": math.log(1.2),
    "left_right": 0.04,
    "up_down": 0.04,
    "size": math.log(1.04),
    "found": 0.5,
}
EDGE_PX = 6  # around what is painted over, which is not sharp or unsharp by itself


def measure(aligned: Aligned, image_shape: tuple[int, int]) -> dict[str, float]:
    """The conditions of one picture.

    Args:
        aligned: the part as the model sees it.
        image_shape: height and width of the picture it was found in.

    Returns:
        `light`: logarithm of 1 + the mean grey level, as it was taken. `sharpness`: logarithm of fine over
        coarser detail. `left_right`, `up_down`: the part's centre, shares of width and height. `size`:
        logarithm of its side as a share of the picture's shorter one; these three only where the part was
        `found` (0 or 1).
    """
    gray = cv2.cvtColor(aligned.image_rgb, cv2.COLOR_RGB2GRAY)
    rows, columns = gray.shape
    middle = _middle(rows), _middle(columns)
    counts = _counts(aligned)
    counts = None if counts is None else counts[middle]
    sharp = gray[middle].astype(np.float32)
    finer, coarser = (cv2.GaussianBlur(sharp, (0, 0), sigma) for sigma in (1.0, 2.0))
    noise = 0.1  # of the grey levels themselves
    fine, coarse = (
        cv2.mean(np.square(detail), counts)[0] + noise for detail in (sharp - finer, finer - coarser)
    )
    x, y = aligned.to_image @ [(columns - 1) / 2, (rows - 1) / 2, 1]
    scale = math.sqrt(abs(np.linalg.det(aligned.to_image[:, :2])))
    height, width = image_shape
    conditions = {
        "light": math.log1p(cv2.mean(gray[middle], counts)[0] / aligned.gain),
        "sharpness": 0.5 * math.log(fine / coarse),
        "found": float(aligned.found),
    }
    pose = {
        "left_right": float(x + 0.5) / width,
        "up_down": float(y + 0.5) / height,
        "size": math.log(scale * min(rows, columns) / min(height, width)),
    }
    return conditions | pose if aligned.found else conditions


def _counts(aligned: Aligned) -> NDArray[np.uint8] | None:
    """Where the picture shows the part itself, not 0: (H, W); None: everywhere."""
    if aligned.ignored is None:
        return None
    counts = ~widened(aligned.ignored, EDGE_PX)
    return (counts if counts.any() else ~aligned.ignored).astype(np.uint8)


def _middle(side_px: int) -> slice:
    cut = max(0, side_px - MIDDLE_PX) // 2
    return slice(cut, side_px - cut)


def usual_conditions(measured: Sequence[Mapping[str, float]]) -> Usual:
    """What is usual, from the training parts' own."""
    usual = {}
    for name, at_least in AT_LEAST.items():
        values = np.array([one[name] for one in measured if name in one])
        median = float(np.median(values))
        spread = 1.4826 * float(np.median(np.abs(values - median)))
        usual[name] = (median, max(at_least, SPREADS * spread))
    return usual


def load_usual(stored: Mapping[str, Sequence[float]]) -> Usual:
    """What a bundle stores. Raises ValueError where that is not what `usual_conditions` makes."""
    usual = {name: (float(median), float(no_news)) for name, (median, no_news) in stored.items()}
    for name, (median, no_news) in usual.items():
        if name not in AT_LEAST or not math.isfinite(median) or not 0 < no_news < math.inf:
            raise ValueError(f"condition {name!r} cannot be {median}, {no_news}")
    return usual


def departures(measured: Mapping[str, float], usual: Usual) -> dict[str, tuple[float, float]]:
    """Condition -> how far it is from its usual value, and how far is no news."""
    return {
        name: (measured[name] - median, no_news)
        for name, (median, no_news) in usual.items()
        if name in measured
    }
