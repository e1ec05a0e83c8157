"""`descriptors`: fixed image descriptors that need no weights, after the scattering transform.

Oriented derivative-of-Gaussian filters and centre-surround differences at several scales, on brightness and
two colour opponents; rectified by sign (a bright line is not a dark line), pooled by root mean square,
compressed by a logarithm. Bruna and Mallat, "Invariant Scattering Convolution Networks", TPAMI 2013; Freeman
and Adelson, "The Design and Use of Steerable Filters", TPAMI 1991.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ORIENTATIONS = 6
ORIENTED = 2 * ORIENTATIONS  # an odd and an even filter each
COLOURS = 3
REGISTERS = 16  # ORIENTED, a spot of each colour, one to spare: whole vector registers
KERNEL_PX = 7
LEVELS = 4  # octaves: full size, 1/2, 1/4, 1/8
FINE_LEVELS = (0, 1)
COARSE_LEVELS = (1, 2, 3)
FINE_STRIDE_PX, COARSE_STRIDE_PX = 4, 8
NOISE_FLOOR = 0.01  # in units of full scale; below it a response is noise


def _oriented_kernels(sigma: float) -> Tensor:
    """First and second derivatives of an elongated Gaussian, unit L1 norm: (ORIENTED, 1, k, k)."""
    reach = torch.arange(KERNEL_PX, dtype=torch.float64) - KERNEL_PX // 2
    y, x = torch.meshgrid(reach, reach, indexing="ij")
    odd, even = [], []
    for k in range(ORIENTATIONS):
        angle = math.pi * k / ORIENTATIONS
        along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        envelope = torch.exp(-0.5 * (across / sigma) ** 2 - 0.5 * (along / (1.8 * sigma)) ** 2)
        odd.append(across * envelope)
        even.append((1 - (across / sigma) ** 2) * envelope)
    kernels = torch.stack(odd + even)
    kernels = kernels - kernels.mean(dim=(1, 2), keepdim=True)
    return (2 * kernels / kernels.abs().sum(dim=(1, 2), keepdim=True)).float()[:, None]


def _gaussian_line(sigma: float, size_px: int) -> Tensor:
    reach = torch.arange(size_px, dtype=torch.float64) - size_px // 2
    line = torch.exp(-0.5 * (reach / sigma) ** 2)
    return line / line.sum()


def _per_colour(kernel: Tensor) -> Tensor:
    return kernel.float().expand(COLOURS, 1, *kernel.shape).contiguous()


class Descriptors(nn.Module):
    """The filter bank: two hierarchies, fine at 1/4 (levels 0, 1) and coarse at 1/8 (levels 1 to 3).

    From the responses on, the numbers of a place lie together (B, h, w, C): on a CPU that halves the time.
    """

    def __init__(self) -> None:
        super().__init__()
        smooth, surround = _gaussian_line(1.0, 5), _gaussian_line(2.0, KERNEL_PX)
        centre = F.pad(smooth, [1, 1])
        spots = 2 * (torch.outer(centre, centre) - torch.outer(surround, surround))
        halving = (F.pad(smooth, [0, 1]) + F.pad(smooth, [1, 0])) / 2  # smoothed, then the mean of two
        oriented = F.pad(_oriented_kernels(1.0), [0] * 6 + [0, REGISTERS - ORIENTED])
        oriented = oriented.clone(memory_format=torch.channels_last)
        self.register_buffer("oriented", oriented, persistent=False)
        self.register_buffer("spots", _per_colour(spots), persistent=False)
        self.register_buffer("halving", _per_colour(torch.outer(halving, halving)), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) in 0 to 1, S a multiple of 8 -> [(B, C, S/4, S/4), (B, C', S/8, S/8)]."""
        red, green, blue = images.unbind(1)
        plane = torch.stack(
            [(red + green + blue) / 3, red - green, (red + green) / 2 - blue], dim=1
        )  # (B, 3, S, S)
        fine: list[Tensor] = []
        coarse: list[Tensor] = []
        for level in range(LEVELS):
            responses = self._responses(plane)
            energies = responses.clamp_min(0).square_(), responses.clamp_max(0).square_()
            if level in FINE_LEVELS:
                fine += _pooled(*energies, FINE_STRIDE_PX >> level)
            if level in COARSE_LEVELS:
                coarse += _pooled(*energies, COARSE_STRIDE_PX >> level)
            if level + 1 < LEVELS:
                padded = F.pad(plane, [2] * 4, mode="replicate")
                plane = F.conv2d(padded, self.get_buffer("halving"), stride=2, groups=COLOURS)
        coarse.append(plane.permute(0, 2, 3, 1))  # the colour at 1/8
        return [torch.cat(maps, dim=3).permute(0, 3, 1, 2) for maps in (fine, coarse)]

    def _responses(self, plane: Tensor) -> Tensor:
        """One octave: (B, 3, h, w) -> (B, h, w, REGISTERS).

        ORIENTED responses of the brightness, then centre minus surround of each colour, then zeros.
        """
        padded = F.pad(plane, [KERNEL_PX // 2] * 4, mode="replicate")
        bright = padded[:, :1].clone(memory_format=torch.channels_last)
        responses = F.conv2d(bright, self.get_buffer("oriented")).permute(0, 2, 3, 1)
        spots = F.conv2d(padded, self.get_buffer("spots"), groups=COLOURS)
        responses[..., ORIENTED : ORIENTED + COLOURS] = spots.permute(0, 2, 3, 1)
        return responses


def _pooled(positive: Tensor, negative: Tensor, stride: int) -> list[Tensor]:
    """Energies (B, h, w, REGISTERS) by sign -> oriented of each sign, then spots, (B, h', w', C)."""
    signs = _compressed(positive, stride), _compressed(negative, stride)
    kinds = slice(0, ORIENTED), slice(ORIENTED, ORIENTED + COLOURS)
    return [sign[..., kind] for kind in kinds for sign in signs]


def _compressed(energy: Tensor, stride: int) -> Tensor:
    """Root mean over overlapping windows of twice the stride, then log(1 + x / noise)."""
    if stride == 4:  # the same windows in two steps, for a third of the time
        rows = energy[:, ::2] + energy[:, 1::2]
        energy, stride = (rows[:, :, ::2] + rows[:, :, 1::2]) / 4, 2
    if stride == 2:
        windows = F.avg_pool2d(energy.permute(0, 3, 1, 2), 4, 2, 1, count_include_pad=False)
        energy = windows.permute(0, 2, 3, 1)
    return torch.log1p(energy.sqrt() / NOISE_FLOOR)
