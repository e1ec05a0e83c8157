"""Light as at training: a picture is brought to the brightness that the training parts have.

A lamp that ages makes no good part bad. One factor for the whole picture and all three colours: what differs
within a part, and its hue, stays, but for what comes to lie above 255. Beyond MOST what is left of the
difference shows; what the sensor clipped in brighter light is lost.
"""

from collections.abc import Iterable
from dataclasses import replace

import cv2
import numpy as np

from varad_core.alignment import Aligned

MOST = 4 / 3  # a fifth less light, and parts that differ by some percent themselves


def brightness(aligned: Aligned) -> float:
    """Mean grey level, 0 to 255, of what is not painted over."""
    gray = cv2.cvtColor(aligned.image_rgb, cv2.COLOR_RGB2GRAY)
    return cv2.mean(gray, None if aligned.ignored is None else (~aligned.ignored).astype(np.uint8))[0]


def usual_brightness(parts: Iterable[Aligned]) -> float:
    """What pictures are brought to: the median of the training parts' brightness, at least 1."""
    return max(1.0, float(np.median([brightness(part) for part in parts])))


def load_light(stored: object) -> float | None:
    """What a bundle stores, if it stores one. Raises ValueError where that is no brightness."""
    if stored is None:
        return None
    if not isinstance(stored, float) or not 1 <= stored <= 255:
        raise ValueError(f"light cannot be {stored!r}")
    return stored


def level(aligned: Aligned, light: float | None) -> Aligned:
    """The part in the light of `usual_brightness`; None leaves it as it is. Paint stays paint."""
    if light is None:
        return aligned
    gain = min(MOST, max(1 / MOST, light / max(brightness(aligned), 1e-3)))
    levelled = np.asarray(cv2.convertScaleAbs(aligned.image_rgb, alpha=gain), np.uint8)
    if aligned.ignored is not None:
        levelled[aligned.ignored] = aligned.image_rgb[aligned.ignored]
    return replace(aligned, image_rgb=levelled, gain=gain)
