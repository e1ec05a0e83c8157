"""The recurrence on CPUs: compiled kernels on threads, with a backward pass of its own.

The kernels (`varad_core.selective_scan_kernels`) work tile by tile; a tile is up to `LANES` channels of one
batch item. Tiles are shared out to at most `torch.get_num_threads()` threads; every sum has one order, so
results do not depend on how many there are.

Without gradients no state is stored; with them one per chunk, and the backward pass recomputes the rest.
The compiled code is cached on disk (`NUMBA_CACHE_DIR`, else `__pycache__`) for the next process.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from varad_core.kernel_threads import share
from varad_core.selective_scan_autograd import differentiable_scan
from varad_core.selective_scan_inputs import ScanInputs
from varad_core.selective_scan_kernels import LANES, Array, backward_kernel, forward_kernel


def numba_scan(inputs: ScanInputs) -> Tensor:
    """Run the recurrence on checked float32 or float64 arguments on a CPU."""
    return differentiable_scan(_forward, _backward, inputs)


def _forward(inputs: ScanInputs, keep_states: bool) -> tuple[Tensor, Tensor]:
    """Return y (Bt, D, L) and, if `keep_states`, the state before each chunk (tiles, chunks, N, LANES)."""
    u, A = inputs.u, inputs.A
    tiles, chunk_steps = _tiling(inputs)
    chunks = -(-u.shape[2] // chunk_steps) if keep_states else 0
    states = u.new_empty(tiles, chunks, A.shape[1], LANES)
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    _share(forward_kernel(u.dtype), inputs, *_arrays(states, y))
    return y, states


def _backward(dy: Tensor, inputs: ScanInputs, states: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of the tensors of `inputs`, in their order; None for those not given."""
    u, _, A, B, _, D, z, delta_bias, _ = inputs
    batch, channels, length = u.shape
    groups, n_states = B.shape[1:3]
    tiles, _ = _tiling(inputs)
    du = torch.empty_like(u, memory_format=torch.contiguous_format)
    ddelta = torch.empty_like(du)
    dz = torch.empty_like(du) if z is not None else u.new_empty(0, 0, 0)
    # One slice per batch item or tile, summed below: they are computed at the same time.
    dA = u.new_empty(batch, *A.shape)
    dB, dC = u.new_empty(2, tiles, n_states, length)
    dD, dbias = u.new_empty(2, batch, channels)
    _share(backward_kernel(u.dtype), inputs, *_arrays(states, dy, du, ddelta, dA, dB, dC, dD, dz, dbias))
    return (
        du,
        ddelta,
        dA.sum(0),
        dB.view(batch, groups, -1, n_states, length).sum(2),
        dC.view(batch, groups, -1, n_states, length).sum(2),
        dD.sum(0) if D is not None else None,
        dz if z is not None else None,
        dbias.sum(0) if delta_bias is not None else None,
    )


def _tiling(inputs: ScanInputs) -> tuple[int, int]:
    """Return how many tiles there are, and the steps per chunk: its states, x LANES, fit the L2 cache."""
    batch, channels, _ = inputs.u.shape
    groups, n_states = inputs.B.shape[1:3]
    return batch * groups * -(-(channels // groups) // LANES), max(4, min(64, 1024 // n_states))


def _share(kernel: Callable[..., None], inputs: ScanInputs, *outputs: Array) -> None:
    """Run the kernel over all tiles, on as many threads as the work deserves."""
    u, delta, A, B, C, D, z, delta_bias, delta_softplus = inputs
    absent = u.new_zeros(u.shape[1])
    tiles, chunk_steps = _tiling(inputs)
    arguments = (
        *_arrays(u, delta, A * math.log2(math.e), B, C),
        *_arrays(absent if D is None else D, u.new_empty(0, 0, 0) if z is None else z),
        *_arrays(absent if delta_bias is None else delta_bias),
        delta_softplus,
        chunk_steps,
        *outputs,
    )
    share(kernel, tiles, u.numel() * A.shape[1], *arguments)


def _arrays(*tensors: Tensor) -> list[Array]:
    return [x.detach().numpy() for x in tensors]
