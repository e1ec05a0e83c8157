"""The filter bank on CPUs: what `varad_core.descriptors` defines in torch, compiled by numba.

Convolution, rectification and the first step of pooling are one pass over `LANES` columns of a row, so what
they hand on stays in the cache. Every filter is odd or even about its centre: opposite pixels are subtracted
or added first, and 25 products make a response, not 49.

Each function has the arguments and the result of its namesake there, float32; results do not depend on the
number of threads. NaN survives, as an energy of negative sign.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from varad_core.kernel_threads import share

Array = NDArray[Any]
KERNEL_PX = 7  # here, too, as numba's cache notices changes in this file only
PAIRS = KERNEL_PX**2 // 2  # of opposite pixels; behind them comes the centre
LANES = 128

# Not all of "fast": NaN, which stands for a damaged image, must survive.
_compiled = numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")


def energies(plane: Tensor, odd: Tensor, even: Tensor, spot: Tensor, block: int) -> Tensor:
    """See `varad_core.descriptors.energies`.

    Raises:
        ValueError: `block` is neither 1 nor 2, or does not divide the plane's sides.
    """
    B, colours, height, width = plane.shape
    if block not in (1, 2) or height % block or width % block:
        raise ValueError(f"block must be 1 or 2 and divide {height} x {width} (got {block})")
    padded = F.pad(plane, [KERNEL_PX // 2] * 4, mode="replicate")
    signed = 2 * (len(odd) + len(even) + colours)
    means = plane.new_empty(B, signed, height // block, width // block)
    halves = [filters.flatten(1)[:, : PAIRS + 1].numpy() for filters in (odd, even, spot)]
    rows, work = B * means.shape[2], plane.numel() * PAIRS
    share(_energies, rows, work, padded.numpy(), *halves, block, means.numpy())
    return means


def windows(cells: Tensor, stride: int) -> Tensor:
    """See `varad_core.descriptors.windows`."""
    B, C, height, width = cells.shape
    means = cells.new_empty(B, C, height // stride, width // stride)
    grids = cells.flatten(0, 1).numpy(), means.flatten(0, 1).numpy()
    share(_windows, B * C, cells.numel(), stride, *grids)
    return means


def halve(plane: Tensor, line: Tensor) -> Tensor:
    """See `varad_core.descriptors.halve`."""
    B, colours, height, width = plane.shape
    padded = F.pad(plane, [len(line) // 2 - 1] * 4, mode="replicate")
    halved = plane.new_empty(B, colours, height // 2, width // 2)
    grids = padded.flatten(0, 1).numpy(), halved.flatten(0, 1).numpy()
    share(_halve, B * colours, plane.numel() * 2, line.numpy(), *grids)
    return halved


@_compiled
def _fold(plane: Array, y: int, x: int, width: int, sums: Array, differences: Array) -> None:
    """Opposite pixels around each of `width` pixels, in lines of LANES; both end with the pixels themselves.

    (For differences that is one line too many; their filters are 0 there, but for rounding.)
    """
    for pair in range(PAIRS):
        down, right = pair // KERNEL_PX, pair % KERNEL_PX
        one = plane[y + down, x + right :]
        other = plane[y + KERNEL_PX - 1 - down, x + KERNEL_PX - 1 - right :]
        for i in range(width):
            sums[pair * LANES + i] = one[i] + other[i]
            differences[pair * LANES + i] = one[i] - other[i]
    centre = plane[y + KERNEL_PX // 2, x + KERNEL_PX // 2 :]
    for i in range(width):
        sums[PAIRS * LANES + i] = centre[i]
        differences[PAIRS * LANES + i] = centre[i]


@_compiled
def _respond(folded: Array, half: Array, width: int, positive: Array, negative: Array) -> None:
    """Add the energies of one filter's responses, by sign."""
    zero = np.float32(0)
    for i in range(width):
        response = zero
        for pair in range(PAIRS + 1):  # known when compiled: unrolled, and several i are done at once
            response += half[pair] * folded[pair * LANES + i]
        above = response if response > zero else zero
        below = response - above
        positive[i] += above * above
        negative[i] += below * below


@_compiled
def _energies(
    first: int, last: int, planes: Array, odd: Array, even: Array, spot: Array, block: int, means: Array
) -> None:
    """Rows `first` to `last` of the result, those of all batch items one behind the other."""
    colours, width = planes.shape[1], planes.shape[3] - KERNEL_PX + 1
    rows = means.shape[2]
    oriented = len(odd) + len(even)
    sums = np.empty((PAIRS + 1) * LANES, np.float32)
    differences = np.empty((PAIRS + 1) * LANES, np.float32)
    tile = np.empty((means.shape[1], LANES), np.float32)
    for row in range(first, last):
        item, i = row // rows, row % rows
        for x in range(0, width, LANES):
            columns = min(LANES, width - x)
            tile[:] = 0
            for y in range(i * block, (i + 1) * block):
                for colour in range(colours):
                    _fold(planes[item, colour], y, x, columns, sums, differences)
                    if colour == 0:
                        for k in range(len(odd)):
                            _respond(differences, odd[k], columns, tile[k], tile[oriented + k])
                        for k in range(len(odd), oriented):
                            _respond(sums, even[k - len(odd)], columns, tile[k], tile[oriented + k])
                    k = 2 * oriented + colour
                    _respond(sums, spot[0], columns, tile[k], tile[k + colours])
            for k in range(len(tile)):
                if block == 1:
                    means[item, k, i, x : x + columns] = tile[k, :columns]
                else:
                    target = means[item, k, i, x // 2 :]
                    for j in range(columns // 2):
                        target[j] = (tile[k, 2 * j] + tile[k, 2 * j + 1]) / 4


@_compiled
def _windows(first: int, last: int, stride: int, cells: Array, means: Array) -> None:
    """Grids `first` to `last`: a window is four half strides wide and high, fewer at the border."""
    height, half = cells.shape[1], stride // 2
    line = np.empty(cells.shape[2], np.float32)
    for grid in range(first, last):
        for i in range(means.shape[1]):
            top, bottom = max(0, stride * i - half), min(height, stride * (i + 1) + half)
            line[:] = cells[grid, top]
            for y in range(top + 1, bottom):
                row = cells[grid, y]
                for x in range(len(row)):
                    line[x] += row[x]
            halves = len(line) // half
            if half > 1:
                for x in range(halves):
                    total = line[half * x]
                    for other in range(half * x + 1, half * (x + 1)):
                        total += line[other]
                    line[x] = total
            target = means[grid, i]
            for j in range(1, len(target) - 1):
                total = line[2 * j - 1] + line[2 * j] + line[2 * j + 1] + line[2 * j + 2]
                target[j] = total / np.float32((bottom - top) * 4 * half)
            for j in (0, len(target) - 1):
                left, right = max(0, 2 * j - 1), min(halves, 2 * j + 3)
                total = np.float32(0)
                for x in range(left, right):
                    total += line[x]
                target[j] = total / np.float32((bottom - top) * (right - left) * half)


@_compiled
def _halve(first: int, last: int, taps: Array, planes: Array, halved: Array) -> None:
    """Planes `first` to `last`: the rows first, then along what is left of them."""
    line = np.empty(planes.shape[2], np.float32)
    for plane in range(first, last):
        for i in range(halved.shape[1]):
            line[:] = 0
            for tap in range(len(taps)):
                row = planes[plane, 2 * i + tap]
                for x in range(len(row)):
                    line[x] += taps[tap] * row[x]
            target = halved[plane, i]
            for j in range(len(target)):
                total = np.float32(0)
                for tap in range(len(taps)):
                    total += taps[tap] * line[2 * j + tap]
                target[j] = total
