"""Framing: how a picture of any size and shape becomes square model inputs, and their maps one map.

`square` squeezes the picture into one square of `image_size_px`. `tiles` keeps its aspect ratio: the picture
is brought to one or more resolutions (given as the length of its shorter side), each is covered by
overlapping squares, and the squares' maps are blended under a Hann window, which is near zero where a square
ends: no seam shows, and what a network or a scan knows little about, its border, counts little. Maps of
several resolutions are averaged. Only a few tiles are in work at a time, so memory does not grow with the
picture but for the picture and its map.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from varad_core.alignment import Aligned, Alignment
from varad_core.config import PATCH_SIZE_PX, FramingName, VaradConfig

ImageRgb = NDArray[np.uint8]
TILES_AT_ONCE = 4
SPARE = 16  # times as many random tiles are drawn as wanted, where some may show only what is ignored
LONG = 2.0  # times as long as wide: squeezed into a square, such parts lose much (README, Measured)


def cover(length: int, tile: int, overlap: float, step: int) -> list[int]:
    """Where tiles start that cover a line from 0 to `length`, evenly spread, at multiples of `step`.

    Neighbours share at least `overlap` of a tile (at most all of it but a step). Where the line is shorter
    than a tile, the one tile sticks out on both sides.

    Args:
        length: of the line; a multiple of `step`, as is `tile`.
        tile: length of a tile.
        overlap: 0 to less than 1.
        step: what starts are a multiple of.
    """
    spare = (length - tile) // step
    if spare <= 0:
        return [spare // 2 * step]
    # In whole steps: starts are rounded to steps, and a stride of 4.5 of them would often become one of 5.
    stride = max(1, math.floor(tile * (1 - overlap) / step + 1e-9))
    count = 1 + math.ceil(spare / stride)
    return [round(start) * step for start in np.linspace(0, spare, count).tolist()]


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiles of a picture.

    Attributes:
        shape: height and width of the picture, px.
        tile_px: side of a tile.
        corners: row and column of each tile's upper left pixel; negative where the picture is smaller.
    """

    shape: tuple[int, int]
    tile_px: int
    corners: tuple[tuple[int, int], ...]

    def cut(self, image_rgb: ImageRgb, at_once: int = TILES_AT_ONCE) -> Iterator[ImageRgb]:
        """The tiles in order, (B, tile, tile, 3) with B <= `at_once`; beyond the picture its edge goes on."""
        reach = np.arange(self.tile_px)
        height, width = self.shape
        for start in range(0, len(self.corners), at_once):
            yield np.stack(
                [
                    image_rgb[np.ix_((row + reach).clip(0, height - 1), (column + reach).clip(0, width - 1))]
                    for row, column in self.corners[start : start + at_once]
                ]
            )

    def showing(self, ignored: NDArray[np.bool_] | None) -> "TileGrid":
        """Without the tiles that show only what is ignored: bool (H, W), of this picture or a finer one."""
        if ignored is None:
            return self
        height, width = self.shape
        counts = cv2.resize((~ignored).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        kept = [
            (row, column)
            for row, column in self.corners
            if counts[max(0, row) : row + self.tile_px, max(0, column) : column + self.tile_px].any()
        ]
        return replace(self, corners=tuple(kept) or self.corners)

    def blend(self, maps: Iterable[Tensor]) -> Tensor:
        """The tiles' maps, batches of (B, m, m) in order, as one map (h, w) of the picture.

        A cell of the result is as large as a cell of a tile's map.
        """
        tile_maps = chain.from_iterable(maps)
        first = next(tile_maps)
        cells = len(first)

        def cell(at_px: int) -> int:
            # Halves always upwards: halves to even would leave the last cell of some pictures uncovered.
            return (2 * at_px * cells + self.tile_px) // (2 * self.tile_px)

        hann = torch.hann_window(cells + 2, periodic=False, device=first.device)[1:-1]
        window = hann[:, None] * hann
        height, width = (max(1, cell(length)) for length in self.shape)
        blended, weights = first.new_zeros(height, width), first.new_zeros(height, width)
        for corner, tile_map in zip(self.corners, chain([first], tile_maps), strict=True):
            row, column = (cell(at_px) for at_px in corner)
            seen = slice(max(0, -row), height - row), slice(max(0, -column), width - column)
            place = slice(max(0, row), row + cells), slice(max(0, column), column + cells)
            blended[place] += (tile_map * window)[seen]
            weights[place] += window[seen]
        weights.clamp_min_(torch.finfo(weights.dtype).tiny)  # the map is 0 where no tile is, see `showing`
        return blended / weights


def fit_framing(name: FramingName, alignment: Alignment, images: Sequence[ImageRgb]) -> FramingName:
    """What `auto` means for these parts: `tiles` where they are seen whole and are LONG, else `square`."""
    if name != "auto":
        return name
    longer = [max(image.shape[:2]) / min(image.shape[:2]) for image in images]
    return "tiles" if alignment.name == "none" and np.median(longer) >= LONG else "square"


class Framing:
    """From an aligned picture to tiles and back, as a configuration asks for it.

    Attributes:
        tile_px: side of the model's input.
    """

    def __init__(self, config: VaradConfig) -> None:
        if config.framing == "auto":
            raise ValueError("framing auto is decided by training; give square or tiles")
        self.tile_px = config.image_size_px
        self.overlap = config.tile_overlap
        self.step_px = PATCH_SIZE_PX[config.tokenizer]
        self.sides_px: Sequence[int] = ()  # `square`
        if config.framing == "tiles":
            self.sides_px = sorted(config.resolutions_px or (config.image_size_px,), reverse=True)

    def align(self, alignment: Alignment, image_rgb: ImageRgb) -> Aligned:
        """The part in its canonical pose, at the finest resolution."""
        if not self.sides_px:
            return alignment.align(image_rgb, self.tile_px)
        return alignment.align(image_rgb, self._whole_steps(self.sides_px[0]), self.step_px)

    def layers(self, aligned: Aligned) -> Iterator[tuple[ImageRgb, TileGrid]]:
        """The picture at each resolution, finest first, with its tiles; none shows only what is ignored."""
        for side_px in self.sides_px or (self.tile_px,):
            layer = aligned.image_rgb
            if self.sides_px and side_px != self.sides_px[0]:
                share = side_px / self.sides_px[0]
                height, width = (self._whole_steps(length * share) for length in layer.shape[:2])
                layer = np.asarray(cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
            yield layer, self.grid((layer.shape[0], layer.shape[1])).showing(aligned.ignored)

    def samples(self, aligned: Aligned, count: int, rng: np.random.Generator) -> Iterator[ImageRgb]:
        """About `count` tiles to fit on, in batches (B, tile, tile, 3); with `square`, the one there is.

        They are drawn from the grids, as evenly from each resolution as it has tiles; where these are fewer
        than `count`, further ones come from random places. Tiles that show only what is ignored are left out.
        """
        layers = list(self.layers(aligned))
        total = sum(len(grid.corners) for _, grid in layers)
        for layer_rgb, grid in layers:
            wanted = max(1, round(count * len(grid.corners) / total)) if self.sides_px else 1
            corners = rng.permutation(grid.corners)[:wanted]
            room = np.array(grid.shape) - self.tile_px
            spare = 1 if aligned.ignored is None else SPARE
            shifted = rng.integers(0, room.clip(0) + 1, (spare * (wanted - len(corners)), 2))
            corners = np.concatenate([corners, np.where(room > 0, shifted, grid.corners[0])])
            drawn = replace(grid, corners=tuple(map(tuple, corners.tolist()))).showing(aligned.ignored)
            yield from replace(drawn, corners=drawn.corners[:wanted]).cut(layer_rgb)

    def grid(self, shape: tuple[int, int]) -> TileGrid:
        """The tiles of a picture of this height and width."""
        rows, columns = (cover(length, self.tile_px, self.overlap, self.step_px) for length in shape)
        return TileGrid(shape, self.tile_px, tuple((row, column) for row in rows for column in columns))

    def input_cells(self, map_shape: Sequence[int], picture_shape: Sequence[int]) -> int:
        """How many cells of a picture's map lie in one model input."""
        share = (self.tile_px / picture_shape[0]) * (self.tile_px / picture_shape[1])
        return round(map_shape[0] * map_shape[1] * min(1.0, share))

    @property
    def beside_px(self) -> int:
        """How wide a band beside what is painted over is left out, canonical px.

        In tiles a patch of the coarsest resolution, else the paint's edge would be the strangest place of
        every picture; in a square 0, as there most models compare a place with itself.
        """
        return round(self.step_px * self.sides_px[0] / self.sides_px[-1]) if self.sides_px else 0

    def _whole_steps(self, length: float) -> int:
        return self.step_px * max(1, round(length / self.step_px))


def fuse(maps: Sequence[Tensor]) -> Tensor:
    """Maps of one picture at several resolutions -> their mean, at the size of the first (h, w)."""
    size = maps[0].shape
    finer = [
        F.interpolate(one[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
        for one in maps[1:]
    ]
    return torch.stack([maps[0], *finer]).mean(0)
