"""The arguments of the recurrence, checked once for every backend."""

from typing import NamedTuple

import torch
from torch import Tensor


class ScanInputs(NamedTuple):
    """Arguments of `varad_core.selective_scan.selective_scan`, which explains them; B and C with groups."""

    u: Tensor  # (Bt, D, L)
    delta: Tensor  # (Bt, D, L)
    A: Tensor  # (D, N)
    B: Tensor  # (Bt, G, N, L)
    C: Tensor  # (Bt, G, N, L)
    D: Tensor | None  # (D,)
    z: Tensor | None  # (Bt, D, L)
    delta_bias: Tensor | None  # (D,)
    delta_softplus: bool


def check_inputs(inputs: ScanInputs) -> None:
    """Check that shapes, dtypes and devices fit together.

    Raises:
        ValueError: they do not; names the argument, what it must be and what it is.
    """
    u, delta, A, B, C, D, z, delta_bias, _ = inputs
    if u.dim() != 3 or 0 in u.shape:
        raise ValueError(f"selective_scan: u must be (batch, channels, length), none 0, got {tuple(u.shape)}")
    if not u.is_floating_point():
        raise ValueError(f"selective_scan: u must be floating point, got {u.dtype}")
    batch, channels, length = u.shape
    if A.dim() != 2 or A.shape[0] != channels or A.shape[1] == 0:
        raise ValueError(f"selective_scan: A must be ({channels}, states) to fit u, got {tuple(A.shape)}")
    states = A.shape[1]
    groups = B.shape[1] if B.dim() == 4 else 0
    if groups == 0 or channels % groups:
        raise ValueError(
            f"selective_scan: B must be ({batch}, {states}, {length}) or "
            f"({batch}, groups, {states}, {length}) with groups dividing {channels}, got {tuple(B.shape)}"
        )
    data: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "delta": (delta, (batch, channels, length)),
        "B": (B, (batch, groups, states, length)),
        "C": (C, (batch, groups, states, length)),
        "z": (z, (batch, channels, length)),
    }
    weights: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "A": (A, (channels, states)),
        "D": (D, (channels,)),
        "delta_bias": (delta_bias, (channels,)),
    }
    for name, (x, shape) in (data | weights).items():
        if x is None:
            continue
        if x.shape != shape:
            raise ValueError(f"selective_scan: {name} must be {shape} to fit u, A, B; got {tuple(x.shape)}")
        float32_beside_half = name in weights and x.dtype == torch.float32 and u.dtype.itemsize == 2
        if x.dtype != u.dtype and not float32_beside_half:
            raise ValueError(f"selective_scan: {name} must be {u.dtype} like u, got {x.dtype}")
        if x.device != u.device:
            raise ValueError(f"selective_scan: {name} must be on {u.device} like u, got {x.device}")
