"""The recurrence in plain torch: a step loop to be believed, and a chunked form to be compared with.

Both take checked arguments and leave the gradients to autograd.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from varad_core.selective_scan_inputs import ScanInputs

CHUNK_STEPS = 64  # (D, 64, N) temporaries stay in the last-level cache at the sizes used here


def reference_scan(inputs: ScanInputs) -> Tensor:
    """One step after the other, as the definition reads. In float64 it is every other backend's oracle."""
    u, delta, A, B, C, D, z, delta_bias, delta_softplus = inputs
    step = _step_size(delta, delta_bias, delta_softplus)
    channels_per_group = u.shape[1] // B.shape[1]
    h = torch.zeros_like(u[:, :, :1] * A)  # (Bt, D, N)
    ys = []
    for t in range(u.shape[2]):
        b_t = B[..., t].repeat_interleave(channels_per_group, dim=1)  # (Bt, D, N)
        c_t = C[..., t].repeat_interleave(channels_per_group, dim=1)
        step_t = step[:, :, t, None]  # (Bt, D, 1)
        h = torch.exp(step_t * A) * h + step_t * b_t * u[:, :, t, None]
        ys.append((h * c_t).sum(-1))
    return _finish(torch.stack(ys, dim=-1), u, D, z)


def chunked_scan(inputs: ScanInputs) -> Tensor:
    """Two-level scan: the rows of a chunk advance side by side, then take over the state of the row before.

    Only products of decays are formed, never quotients, so it is as stable as the step loop. Under autograd
    each chunk is recomputed in the backward pass, which keeps one state per chunk instead of one per step.
    """
    u, delta, A, B, C, D, z, delta_bias, delta_softplus = inputs
    step = _step_size(delta, delta_bias, delta_softplus)
    batch, channels, length = u.shape
    groups, states = B.shape[1:3]
    grouped = (batch, groups, channels // groups)
    h = (u[:, :, :1] * A).new_zeros(*grouped, states)
    A = A.view(groups, channels // groups, states)
    ys = []
    for start in range(0, length, CHUNK_STEPS):
        part = slice(start, min(start + CHUNK_STEPS, length))
        chunk = (step[..., part].unflatten(1, grouped[1:]), u[..., part].unflatten(1, grouped[1:]))
        arguments = (h, A, *chunk, B[..., part], C[..., part])
        if torch.is_grad_enabled():
            y, h = checkpoint(_scan_chunk, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            y, h = _scan_chunk(*arguments)
        ys.append(y.flatten(1, 2))
    return _finish(torch.cat(ys, dim=-1), u, D, z)


def _scan_chunk(h: Tensor, A: Tensor, step: Tensor, u: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """Advance one chunk.

    Args:
        h: state before it, (Bt, G, E, N) with E channels per group.
        A: (G, E, N).
        step: (Bt, G, E, T).
        u: (Bt, G, E, T).
        B: (Bt, G, N, T).
        C: (Bt, G, N, T).

    Returns:
        y (Bt, G, E, T) and the state after it.
    """
    steps = step.shape[-1]
    columns = math.isqrt(steps - 1) + 1
    rows = -(-steps // columns)
    padding = (0, rows * columns - steps)  # a step of size 0 leaves the state as it is

    def fold(x: Tensor) -> Tensor:  # (..., T) -> (..., rows, columns)
        folded: Tensor = F.pad(x, padding).unflatten(-1, (rows, columns))
        return folded

    step, u = fold(step), fold(u)
    B, C = (fold(x).permute(0, 1, 3, 4, 2).unsqueeze(2) for x in (B, C))  # (Bt, G, 1, rows, columns, N)
    decay = torch.exp(step[..., None] * A[:, :, None, None, :])  # (Bt, G, E, rows, columns, N)
    drive = (step * u)[..., None] * B
    local = [drive[..., 0, :]]
    passed = [decay[..., 0, :]]  # what is left of the state a row began with
    for column in range(1, columns):
        local.append(torch.addcmul(drive[..., column, :], decay[..., column, :], local[-1]))
        passed.append(decay[..., column, :] * passed[-1])
    inherited = []
    for row in range(rows):
        inherited.append(h)
        h = torch.addcmul(local[-1][..., row, :], passed[-1][..., row, :], h)
    begin = torch.stack(inherited, dim=-2)[..., None, :]  # (Bt, G, E, rows, 1, N)
    states = torch.addcmul(torch.stack(local, dim=-2), torch.stack(passed, dim=-2), begin)
    return (states * C).sum(-1).flatten(-2)[..., :steps], h


def _step_size(delta: Tensor, delta_bias: Tensor | None, delta_softplus: bool) -> Tensor:
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    return F.softplus(delta) if delta_softplus else delta


def _finish(y: Tensor, u: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    if D is not None:
        y = y + D[:, None] * u
    if z is not None:
        y = y * F.silu(z)
    return y.to(u.dtype)
