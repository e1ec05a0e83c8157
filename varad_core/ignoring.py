"""Regions of a part where nothing counts: a printed number, a hole that the belt is seen through.

A mask is drawn over the picture of one good part and kept in the pose that the model sees parts in: where
parts are aligned it follows them, elsewhere it stays where it is. There it is painted over, in training and
ever after, so that what lies in it changes no token, no prediction and no score. (A round part's pose is
found before, on the whole picture.) In tiles a band beside it is left out as well, see `Framing.beside_px`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from varad_core.alignment import Aligned, Alignment, DiscAlignment, ImageRgb
from varad_core.data import load_image
from varad_core.types import DataError

Mask = NDArray[np.bool_]  # (H, W), True where nothing counts
PAINT = 128
MOST_GREY = 0.1  # of a mask: soft edges of the brush, a lossy file
LEAST = 0.02  # of a square as high as the part is wide or high: less left to look at is a mistake


def load_mask(path: Path, drawn_over: Path) -> Mask:
    """Read a mask that was drawn over a part's picture: white where nothing counts, black elsewhere.

    Raises:
        DataError: it cannot be read, is no drawing in black and white, has another size than the picture, or
            leaves out everything or nothing.
    """
    picture = load_image(path).max(axis=2)
    grey = ((picture > 32) & (picture < 223)).mean()
    if grey > MOST_GREY:
        raise DataError(
            f"mask {path}: {grey:.0%} of it is neither black nor white, is it a photograph? Paint white what "
            "does not count, and all else black"
        )
    drawn = picture >= 128
    height, width = load_image(drawn_over).shape[:2]
    if drawn.shape != (height, width):
        raise DataError(
            f"mask {path}: {drawn.shape[1]} x {drawn.shape[0]} px, but {drawn_over} has {width} x {height}; "
            "draw it over a copy of that picture"
        )
    if drawn.all() or not drawn.any():
        colour, what = ("white", "everything") if drawn.all() else ("black", "nothing")
        raise DataError(f"mask {path}: all {colour}, it leaves out {what}; paint white what does not count")
    return drawn


class PaintedOver:
    """An `Alignment` whose parts are painted over where nothing counts."""

    def __init__(self, alignment: Alignment, ignored: Mask) -> None:
        """`ignored`: in the pose of the aligned part; where parts differ in size, at that of one of them."""
        self.name = alignment.name
        self.turns = isinstance(alignment, DiscAlignment) and alignment.template is not None
        self.ignored = ignored
        self._alignment = alignment

    def align(self, image_rgb: ImageRgb, size_px: int, step_px: int = 0) -> Aligned:
        """See `Alignment.align`."""
        aligned = self._alignment.align(image_rgb, size_px, step_px)
        rows, columns = aligned.image_rgb.shape[:2]
        here = self.ignored
        if here.shape != (rows, columns):
            sized = cv2.resize(here.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST)
            here = sized.astype(np.bool_)
        painted = np.where(here[..., None], np.uint8(PAINT), aligned.image_rgb)
        return replace(aligned, image_rgb=painted, ignored=here)

    def tensors(self) -> dict[str, Tensor]:
        """The alignment's, and the mask."""
        return {**self._alignment.tensors(), "ignored": torch.from_numpy(self.ignored.astype(np.uint8))}


def following(alignment: Alignment, mask: Mask, aligned: Aligned, beside_px: int = 0) -> PaintedOver:
    """The alignment with a mask that was drawn over the picture of `aligned`.

    Raises:
        DataError: the mask leaves out nothing, or with `beside_px` around it the whole part, or there is no
            part in that picture.
    """
    rows, columns = aligned.image_rgb.shape[:2]
    turned = cv2.warpAffine(
        mask.astype(np.uint8),
        aligned.to_image,
        (columns, rows),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if not aligned.found:
        raise DataError(
            "mask: no part is found in the picture it is drawn over; take that one out of the set"
        )
    whole = (~widened(turned, beside_px)).sum() < LEAST * min(rows, columns) ** 2
    if whole or not turned.any():
        what = "the whole part" if whole else "nothing of what the model looks at"
        raise DataError(f"mask: it leaves out {what}; paint white what does not count")
    return PaintedOver(alignment, turned.astype(np.bool_))


def widened(ignored: Mask, beside_px: int) -> Mask:
    """The region and what lies within `beside_px` of it."""
    reach = np.ones((2 * beside_px + 1, 2 * beside_px + 1), np.uint8)
    return cv2.dilate(ignored.astype(np.uint8), reach) > 0


def counting(canonical_map: Tensor, ignored: Mask, beside_px: int = 0) -> Tensor:
    """A map (h, w) with its lowest value where nothing counts: in the region, and `beside_px` around it.

    Paint is no surface that parts have, and its edge is seen by every token beside it.
    """
    rows, columns = canonical_map.shape
    near = widened(ignored, beside_px)
    share = cv2.resize(near.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    nothing = torch.from_numpy(share >= 0.5).to(canonical_map.device)
    return torch.where(nothing, canonical_map.amin(), canonical_map)


def counting_each(maps: Tensor, ignored: Mask | None) -> Tensor:
    """`counting` of maps (B, h, w) of whole squares; unchanged where there is no mask."""
    return maps if ignored is None else torch.stack([counting(one, ignored) for one in maps])


def stored_mask(alignment: Alignment, tensors: Mapping[str, Tensor]) -> Alignment:
    """A bundle's alignment, with its mask where it has one; ValueError where that is none."""
    if "ignored" not in tensors:
        return alignment
    ignored = tensors["ignored"]
    if ignored.dtype != torch.uint8 or ignored.ndim != 2:
        raise ValueError(f"the mask is {ignored.dtype} {tuple(ignored.shape)}, not (H, W) of bytes")
    return PaintedOver(alignment, ignored.numpy() > 0)
