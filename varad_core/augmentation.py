"""Varied copies of good pictures: what a line's light, optics and fixture change between two set-ups.

The ranges are those over which a judgement should stay the same: light by a fifth, five degrees, five percent
of scale, two percent of place, a little focus and sensor noise. Beyond the picture its border is replicated.
"""

from collections.abc import Sequence
from typing import overload

import cv2
import numpy as np
from numpy.typing import NDArray

ImageRgb = NDArray[np.uint8]

GAIN = 0.20  # of the light, either way
TURN_DEG = 5.0
SCALE = 0.05
SHIFT = 0.02  # of the picture's sides
BLUR_PX = 1.0  # Gaussian sigma, at most
NOISE = 5.0  # standard deviation in grey levels of 255, at most


class Varied(Sequence[ImageRgb]):
    """Pictures, then `variants` varied copies of each, made when asked for: item i is of picture i mod n.

    The same seed gives the same copies.
    """

    def __init__(self, images_rgb: Sequence[ImageRgb], variants: int, seed: int) -> None:
        self.images_rgb = images_rgb
        self.variants = variants
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images_rgb) * (1 + self.variants)

    @overload
    def __getitem__(self, index: int) -> ImageRgb: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageRgb]: ...
    def __getitem__(self, index: int | slice) -> ImageRgb | list[ImageRgb]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        copy, original = divmod(index, len(self.images_rgb))
        image_rgb = self.images_rgb[original]
        return vary(image_rgb, np.random.default_rng([self.seed, index])) if copy else image_rgb


def vary(image_rgb: ImageRgb, rng: np.random.Generator) -> ImageRgb:
    """A copy of the picture as another set-up might have taken it: uint8 (H, W, 3), every range uniform."""
    turn, scale, across, down, gain = rng.uniform(-1, 1, 5) * (TURN_DEG, SCALE, SHIFT, SHIFT, GAIN)
    blur, noise = rng.uniform(0, 1, 2) * (BLUR_PX, NOISE)
    varied = move(image_rgb, turn_deg=turn, scale=1 + scale, shift=(across, down))
    return sense(varied, rng, gain=1 + gain, blur_px=blur, noise=noise)


def move(
    image_rgb: ImageRgb, *, turn_deg: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> ImageRgb:
    """The picture turned and scaled about its centre, then shifted by shares of its width and height."""
    height, width = image_rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn_deg, scale)
    matrix[:, 2] += shift[0] * width, shift[1] * height
    moved = cv2.warpAffine(
        image_rgb, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.uint8)


def sense(
    image_rgb: ImageRgb,
    rng: np.random.Generator,
    *,
    gain: float = 1.0,
    blur_px: float = 0.0,
    noise: float = 0.0,
) -> ImageRgb:
    """The picture in other light, out of focus by `blur_px`, with sensor noise of `noise` grey levels."""
    seen = image_rgb.astype(np.float32) * np.float32(gain)
    if blur_px > 0:
        seen = cv2.GaussianBlur(seen, (0, 0), blur_px, borderType=cv2.BORDER_REPLICATE)
    if noise > 0:
        seen += np.float32(noise) * rng.standard_normal(seen.shape, np.float32)
    return np.asarray(np.clip(np.rint(seen), 0, 255), np.uint8)
