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
KERNEL_PX = 7
LEVELS = 4  # octaves: full size, 1/2, 1/4, 1/8
FINE_LEVELS = (0, 1)
COARSE_LEVELS = (1, 2, 3)
FINE_STRIDE_PX, COARSE_STRIDE_PX = 4, 8
NOISE_FLOOR = 0.01  # in units of full scale; below it a response is noise


def _oriented_kernels(sigma: float) -> Tensor:
    """First and second derivatives of an elongated Gaussian, unit L1 norm: (2 * ORIENTATIONS, 1, k, k)."""
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
    return (line / line.sum()).float()


class Descriptors(nn.Module):
    """The filter bank: two hierarchies, fine at 1/4 (levels 0, 1) and coarse at 1/8 (levels 1 to 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernels", _oriented_kernels(1.0), persistent=False)
        self.register_buffer("smooth", _gaussian_line(1.0, 5), persistent=False)
        self.register_buffer("surround", _gaussian_line(2.0, KERNEL_PX), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) in 0 to 1 -> [(B, C, S/4, S/4), (B, C', S/8, S/8)]."""
        red, green, blue = images.unbind(1)
        plane = torch.stack(
            [(red + green + blue) / 3, red - green, (red + green) / 2 - blue], dim=1
        )  # (B, 3, S, S)
        responses: list[Tensor] = []
        for level in range(LEVELS):
            responses.append(self._level(plane))
            if level + 1 < LEVELS:
                plane = F.avg_pool2d(self._blur(plane, "smooth"), 2)
        fine = [self._pool(responses[level], FINE_STRIDE_PX >> level) for level in FINE_LEVELS]
        coarse = [self._pool(responses[level], COARSE_STRIDE_PX >> level) for level in COARSE_LEVELS]
        return [
            torch.cat(fine, dim=1),
            torch.cat([*coarse, plane], dim=1),
        ]  # the last plane is the colour at 1/8

    def _level(self, plane: Tensor) -> Tensor:
        """Rectified responses of one octave: (B, 3, h, w) -> (B, 4 * ORIENTATIONS + 6, h, w)."""
        bright = F.pad(plane[:, :1], [KERNEL_PX // 2] * 4, mode="replicate")
        oriented = F.conv2d(bright, self.get_buffer("kernels"))
        spots = self._blur(plane, "smooth") - self._blur(
            plane, "surround"
        )  # centre minus surround, per colour
        return torch.cat([F.relu(oriented), F.relu(-oriented), 2 * F.relu(spots), 2 * F.relu(-spots)], dim=1)

    def _blur(self, plane: Tensor, name: str) -> Tensor:
        line = self.get_buffer(name)
        padded = F.pad(plane, [len(line) // 2] * 4, mode="replicate")
        B, C, H, W = padded.shape
        single = padded.view(B * C, 1, H, W)  # every colour alike
        blurred = F.conv2d(F.conv2d(single, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))
        return blurred.view(plane.shape)

    @staticmethod
    def _pool(rectified: Tensor, stride: int) -> Tensor:
        """Root mean square over overlapping windows of twice the stride, then log(1 + x / noise)."""
        if stride > 1:
            energy = rectified.square()
            if stride % 4 == 0:  # the same windows in two steps, for a third of the time
                energy, stride = F.avg_pool2d(energy, stride // 2), 2
            pooled = F.avg_pool2d(energy, 2 * stride, stride, stride // 2, count_include_pad=False)
            rectified = pooled.sqrt()
        return torch.log1p(rectified / NOISE_FLOOR)
