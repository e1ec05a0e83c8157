"""`descriptors`: fixed image descriptors that need no weights, after the scattering transform.

Oriented derivative-of-Gaussian filters and centre-surround differences at several scales, on brightness and
two colour opponents; rectified by sign (a bright line is not a dark line), pooled by root mean square,
compressed by a logarithm. Bruna and Mallat, "Invariant Scattering Convolution Networks", TPAMI 2013; Freeman
and Adelson, "The Design and Use of Steerable Filters", TPAMI 1991.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ORIENTATIONS = 6
COLOURS = 3
KERNEL_PX = 7
STRIDES = (4, None), (2, 4), (None, 2), (None, 1)
"""Of each octave (full size, 1/2, 1/4, 1/8), in its own pixels: how far apart fine and coarse tokens lie."""
NOISE_FLOOR = 0.01  # in units of full scale; below it a response is noise


def _oriented_kernels(sigma: float) -> tuple[Tensor, Tensor]:
    """First (odd) and second (even) derivatives of an elongated Gaussian: (ORIENTATIONS, 1, k, k) each."""
    reach = torch.arange(KERNEL_PX, dtype=torch.float64) - KERNEL_PX // 2
    y, x = torch.meshgrid(reach, reach, indexing="ij")
    odd, even = [], []
    for k in range(ORIENTATIONS):
        angle = math.pi * k / ORIENTATIONS
        along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        envelope = torch.exp(-0.5 * (across / sigma) ** 2 - 0.5 * (along / (1.8 * sigma)) ** 2)
        odd.append(across * envelope)
        even.append((1 - (across / sigma) ** 2) * envelope)
    return _normed(odd), _normed(even)


def _normed(kernels: list[Tensor]) -> Tensor:
    """Of mean 0 and L1 norm 2: (n, 1, k, k)."""
    stacked = torch.stack(kernels)
    stacked = stacked - stacked.mean(dim=(1, 2), keepdim=True)
    return (2 * stacked / stacked.abs().sum(dim=(1, 2), keepdim=True)).float()[:, None]


def _gaussian_line(sigma: float, size_px: int) -> Tensor:
    reach = torch.arange(size_px, dtype=torch.float64) - size_px // 2
    line = torch.exp(-0.5 * (reach / sigma) ** 2)
    return line / line.sum()


class Descriptors(nn.Module):
    """The filter bank: two hierarchies, fine at 1/4 (two octaves) and coarse at 1/8 (three)."""

    def __init__(self) -> None:
        super().__init__()
        smooth, surround = _gaussian_line(1.0, 5), _gaussian_line(2.0, KERNEL_PX)
        centre = F.pad(smooth, [1, 1])
        spot = 2 * (torch.outer(centre, centre) - torch.outer(surround, surround))
        halving = (F.pad(smooth, [0, 1]) + F.pad(smooth, [1, 0])) / 2  # smoothed, then the mean of two
        odd, even = _oriented_kernels(1.0)
        for name, kernels in (("odd", odd), ("even", even), ("spot", spot.float()[None, None])):
            self.register_buffer(name, kernels, persistent=False)
        self.register_buffer("halving", halving.float(), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) in 0 to 1, S a multiple of 8 -> [(B, C, S/4, S/4), (B, C', S/8, S/8)]."""
        on_cpu = images.device.type == "cpu" and images.dtype == torch.float32
        respond, pool, half = _for_cpus() if on_cpu else _IN_TORCH
        kernels = [self.get_buffer(name) for name in ("odd", "even", "spot")]
        red, green, blue = images.unbind(1)
        plane = torch.stack(
            [(red + green + blue) / 3, red - green, (red + green) / 2 - blue], dim=1
        )  # (B, 3, S, S)
        fine: list[Tensor] = []
        coarse: list[Tensor] = []
        for octave, strides in enumerate(STRIDES):
            if octave:
                plane = half(plane, self.get_buffer("halving"))
            block = max(1, min(stride for stride in strides if stride) // 2)
            cells = respond(plane, *kernels, block)
            for maps, stride in zip((fine, coarse), strides, strict=True):
                if stride:
                    pooled = pool(cells, stride // block) if stride > block else cells
                    maps.append(pooled.sqrt().div_(NOISE_FLOOR).log1p_())
        return [torch.cat(fine, dim=1), torch.cat([*coarse, plane], dim=1)]  # at last the colour at 1/8


def energies(plane: Tensor, odd: Tensor, even: Tensor, spot: Tensor, block: int) -> Tensor:
    """Squared responses, positive and negative ones apart: mean over cells of `block` x `block` pixels.

    Args:
        plane: brightness and two colour opponents, (B, 3, h, w).
        odd: filters for the brightness, (n, 1, k, k), -1 times themselves when turned by half a turn.
        even: likewise, (m, 1, k, k), themselves when turned by half a turn.
        spot: centre minus surround, for all three, (1, 1, k, k), even.
        block: divides h and w.

    Returns:
        (B, 2 (n + m) + 6, h / block, w / block): odd and even of positive sign, then of negative, spots of
        positive sign, then of negative.
    """
    padded = F.pad(plane, [KERNEL_PX // 2] * 4, mode="replicate")
    oriented = F.conv2d(padded[:, :1], torch.cat([odd, even]))
    spots = F.conv2d(padded, spot.expand(COLOURS, -1, -1, -1), groups=COLOURS)
    signs = [sign for one in (oriented, spots) for sign in (one.clamp_min(0), one.clamp_max(0))]
    squared = torch.cat(signs, dim=1).square_()
    return F.avg_pool2d(squared, block) if block > 1 else squared


def windows(cells: Tensor, stride: int) -> Tensor:
    """Means over overlapping windows of twice the stride: (B, C, h, w) -> (B, C, h / stride, w / stride).

    The stride is even and divides both sides.
    """
    return F.avg_pool2d(cells, 2 * stride, stride, stride // 2, count_include_pad=False)


def halve(plane: Tensor, line: Tensor) -> Tensor:
    """Smooth with `line` along both sides, take every other: (B, 3, h, w), (k,) -> (B, 3, h / 2, w / 2)."""
    padded = F.pad(plane, [len(line) // 2 - 1] * 4, mode="replicate")
    kernel = torch.outer(line, line).expand(COLOURS, 1, -1, -1)
    return F.conv2d(padded, kernel, stride=2, groups=COLOURS)


_IN_TORCH: tuple[Callable[..., Tensor], ...] = energies, windows, halve


def _for_cpus() -> tuple[Callable[..., Tensor], ...]:
    """The same three, compiled."""
    from varad_core import descriptors_cpu  # imports numba, which takes its time

    return descriptors_cpu.energies, descriptors_cpu.windows, descriptors_cpu.halve
