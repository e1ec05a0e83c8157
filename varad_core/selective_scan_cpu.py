"""The recurrence compiled for CPUs with numba, with a backward pass of its own.

How it is fast: one tile is `LANES` neighbouring channels of one batch item, side by side in vector registers, so the
exponential (nearly all of the work) is vectorised and needs no sum across lanes; a chunk of a tile's steps is
transposed into small buffers that stay in the cache; softplus, skip and gate happen there too. The forward pass
stores no state unless gradients will be asked for, and then one per chunk: the backward pass recomputes the states
of a chunk from it.

Tiles are shared out to at most `torch.get_num_threads()` plain threads, which run outside the interpreter lock. That
needs no numba threading layer (whose default aborts the process when two threads use it at once), so concurrent
calls and forks are safe; and every sum has one order, so results do not depend on the number of threads.

The compiled code is cached on disk (`NUMBA_CACHE_DIR`, else `__pycache__`) for the next process.
"""

import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from varad_core.selective_scan_math import FASTMATH, exp2, sigmoid, softplus

LANES = 64
LOG2_E = math.log2(math.e)
LN_2 = math.log(2.0)
SUPPORTED_DTYPES = (torch.float32, torch.float64)
_WORK_PER_THREAD = 2**18  # channel-steps-states (about 0.1 ms) under which another thread is not worth waking

Array = NDArray[Any]


def numba_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    """Run the recurrence on arguments already checked by `varad_core.selective_scan`; float32 or float64, CPU."""
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        y: Tensor = _NumbaScan.apply(*tensors, delta_softplus)  # type: ignore[no-untyped-call]
        return y
    return _forward(*tensors, delta_softplus, keep_states=False)[0]


class _NumbaScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        y, states = _forward(*arguments, keep_states=True)
        ctx.save_for_backward(*arguments[:-1], states)
        ctx.delta_softplus = arguments[-1]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, states = ctx.saved_tensors
        return (*_backward(dy, *tensors, ctx.delta_softplus, states), None)


def _forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    *,
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    """Return y (Bt, D, L) and, if `keep_states`, the state before each chunk (tiles, chunks, N, LANES)."""
    tiles, chunk_steps = _tiling(u, B)
    chunks = -(-u.shape[2] // chunk_steps) if keep_states else 0
    states = u.new_empty(tiles, chunks, A.shape[1], LANES)
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    inputs = _inputs(u, delta, A, B, C, D, z, delta_bias)
    _share(
        _compiled(_forward_tiles, u.dtype),
        tiles,
        u,
        A,
        *inputs,
        delta_softplus,
        chunk_steps,
        *_arrays(states, y),
    )
    return y, states


def _backward(
    dy: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    states: Tensor,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of u, delta, A, B, C, D, z, delta_bias; None for those not given."""
    tiles, chunk_steps = _tiling(u, B)
    batch, channels, length = u.shape
    groups, n_states = B.shape[1:3]
    du = torch.empty_like(u, memory_format=torch.contiguous_format)
    ddelta = torch.empty_like(du)
    dz = torch.empty_like(du) if z is not None else u.new_empty(0, 0, 0)
    dA = u.new_empty(batch, channels, n_states)
    dD = u.new_empty(batch, channels)
    dbias = u.new_empty(batch, channels)
    # One slice per tile, summed afterwards: tiles of a group may run at the same time.
    dB = u.new_empty(tiles, n_states, length)
    dC = torch.empty_like(dB)
    inputs = _inputs(u, delta, A, B, C, D, z, delta_bias)
    outputs = _arrays(states, dy, du, ddelta, dA, dB, dC, dD, dz, dbias)
    _share(_compiled(_backward_tiles, u.dtype), tiles, u, A, *inputs, delta_softplus, chunk_steps, *outputs)
    dB, dC = (d.view(batch, groups, -1, n_states, length).sum(2) for d in (dB, dC))
    return (
        du,
        ddelta,
        dA.sum(0),
        dB,
        dC,
        dD.sum(0) if D is not None else None,
        dz if z is not None else None,
        dbias.sum(0) if delta_bias is not None else None,
    )


def _tiling(u: Tensor, B: Tensor) -> tuple[int, int]:
    """Return how many tiles there are, and the steps per chunk (a chunk's states, x LANES, fit the L2 cache)."""
    batch, channels, _ = u.shape
    groups, n_states = B.shape[1:3]
    return batch * groups * -(-(channels // groups) // LANES), max(4, min(64, 1024 // n_states))


def _inputs(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> list[Array]:
    absent = u.new_zeros(1).expand(u.shape[1])
    return _arrays(
        u,
        delta,
        A * LOG2_E,
        B,
        C,
        D if D is not None else absent,
        z if z is not None else u.new_empty(0, 0, 0),
        delta_bias if delta_bias is not None else absent,
    )


def _arrays(*tensors: Tensor) -> list[Array]:
    return [t.detach().numpy() for t in tensors]


def _share(kernel: Callable[..., None], tiles: int, u: Tensor, A: Tensor, *arguments: Any) -> None:
    """Run `kernel(first, last, *arguments)` over all tiles on as many threads as the work deserves."""
    work = u.numel() * A.shape[1]
    threads = min(torch.get_num_threads(), tiles, 1 + work // _WORK_PER_THREAD)
    bounds = [tiles * k // threads for k in range(threads + 1)]
    others = [
        _pool(threads - 1).submit(kernel, first, last, *arguments)
        for first, last in zip(bounds[1:-1], bounds[2:], strict=True)
    ]
    kernel(bounds[0], bounds[1], *arguments)
    for other in others:
        other.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="selective_scan")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked child has the pool, but not its threads


@functools.cache
def _compiled(kernel: Callable[..., None], dtype: torch.dtype) -> Callable[..., None]:
    """Compile `kernel`, or load it from the cache: one machine code per dtype, for arrays of any strides."""
    real = numba.float32 if dtype == torch.float32 else numba.float64
    vector, matrix, cube, four = (numba.types.Array(real, ndim, "A") for ndim in (1, 2, 3, 4))
    index = numba.int64
    inputs = (index, index, cube, cube, matrix, four, four, vector, cube, vector, numba.boolean, index, four)
    outputs = (
        (cube,) if kernel is _forward_tiles else (cube, cube, cube, cube, cube, cube, matrix, cube, matrix)
    )
    options = dict(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")
    compiled: Callable[..., None] = numba.njit(numba.void(*inputs, *outputs), **options)(kernel)
    return compiled


_inline = numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")


@_inline
def _place(tile, channels, groups):  # type: ignore[no-untyped-def]
    """Return batch item, group, first channel and width of a tile."""
    per_group = channels // groups
    tiles_per_group = (per_group + LANES - 1) // LANES
    item, rest = divmod(tile, groups * tiles_per_group)
    group, k = divmod(rest, tiles_per_group)
    return item, group, group * per_group + k * LANES, min(LANES, per_group - k * LANES)


@_inline
def _gather(source, start, tile):  # type: ignore[no-untyped-def]
    """Transpose steps `start` and on of source (rows, L) into tile (steps, >= rows); zero its other columns."""
    for i in range(source.shape[0]):
        for t in range(min(tile.shape[0], source.shape[1] - start)):
            tile[t, i] = source[i, start + t]
    tile[:, source.shape[0] :] = 0


@_inline
def _scatter(tile, start, target):  # type: ignore[no-untyped-def]
    """Undo `_gather`: transpose the first columns of tile into steps `start` and on of target."""
    for i in range(target.shape[0]):
        for t in range(min(tile.shape[0], target.shape[1] - start)):
            target[i, start + t] = tile[t, i]


def _forward_tiles(  # type: ignore[no-untyped-def]  # noqa: PLR0912
    first, last, u, delta, A2, B, C, D, z, bias, delta_softplus, chunk_steps, states, y
):
    channels, length = u.shape[1:]
    groups, n_states = B.shape[1:3]
    u_tile, step, drive, y_tile, gate = np.zeros((5, chunk_steps, LANES), u.dtype)
    b, c = np.empty((2, chunk_steps, n_states), u.dtype)
    for tile in range(first, last):
        item, group, channel, width = _place(tile, channels, groups)
        own = slice(channel, channel + width)
        a = np.zeros((n_states, LANES), u.dtype)
        a[:, :width] = A2[own].T
        skip, shift = np.zeros((2, LANES), u.dtype)
        skip[:width] = D[own]
        shift[:width] = bias[own]
        h = np.zeros((n_states, LANES), u.dtype)
        for start in range(0, length, chunk_steps):
            if states.shape[1] > 0:
                states[tile, start // chunk_steps] = h
            _gather(u[item, own], start, u_tile)
            _gather(delta[item, own], start, step)
            _gather(B[item, group], start, b)
            _gather(C[item, group], start, c)
            for t in range(min(chunk_steps, length - start)):
                for i in range(LANES):
                    step[t, i] += shift[i]
                if delta_softplus:
                    for i in range(LANES):
                        step[t, i] = softplus(step[t, i])
                for i in range(LANES):
                    drive[t, i] = step[t, i] * u_tile[t, i]
                    y_tile[t, i] = skip[i] * u_tile[t, i]
                for n in range(n_states):
                    b_n = b[t, n]
                    c_n = c[t, n]
                    for i in range(LANES):
                        h_new = exp2(step[t, i] * a[n, i]) * h[n, i] + drive[t, i] * b_n
                        h[n, i] = h_new
                        y_tile[t, i] += h_new * c_n
            if z.shape[0] > 0:
                _gather(z[item, own], start, gate)
                for t in range(chunk_steps):
                    for i in range(LANES):
                        y_tile[t, i] *= gate[t, i] * sigmoid(gate[t, i])
            _scatter(y_tile, start, y[item, own])


def _backward_tiles(  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0915
    first, last, u, delta, A2, B, C, D, z, bias, delta_softplus, chunk_steps, states,
    dout, du, ddelta, dA, dB, dC, dD, dz, dbias,
):  # fmt: skip
    channels, length = u.shape[1:]
    groups, n_states = B.shape[1:3]
    chunks = (length + chunk_steps - 1) // chunk_steps
    ln_2 = u.dtype.type(LN_2)
    zero = u.dtype.type(0)
    u_tile, raw, step, drive, y_tile, gate, dy = np.zeros((7, chunk_steps, LANES), u.dtype)
    du_tile, ddelta_tile, dz_tile = np.zeros((3, chunk_steps, LANES), u.dtype)
    b, c, db, dc = np.empty((4, chunk_steps, n_states), u.dtype)
    decay, h = np.empty((2, chunk_steps, n_states, LANES), u.dtype)
    for tile in range(first, last):
        item, group, channel, width = _place(tile, channels, groups)
        own = slice(channel, channel + width)
        a = np.zeros((n_states, LANES), u.dtype)
        a[:, :width] = A2[own].T
        skip, shift, dskip, dshift, ddrive, dstep = np.zeros((6, LANES), u.dtype)
        skip[:width] = D[own]
        shift[:width] = bias[own]
        da, dh = np.zeros((2, n_states, LANES), u.dtype)
        for chunk in range(chunks - 1, -1, -1):
            start = chunk * chunk_steps
            steps = min(chunk_steps, length - start)
            _gather(u[item, own], start, u_tile)
            _gather(delta[item, own], start, raw)
            _gather(B[item, group], start, b)
            _gather(C[item, group], start, c)
            _gather(dout[item, own], start, dy)
            # The chunk's states again, from the one before it.
            for t in range(steps):
                before = states[tile, chunk] if t == 0 else h[t - 1]
                for i in range(LANES):
                    raw[t, i] += shift[i]
                    step[t, i] = raw[t, i]
                if delta_softplus:
                    for i in range(LANES):
                        step[t, i] = softplus(raw[t, i])
                for i in range(LANES):
                    drive[t, i] = step[t, i] * u_tile[t, i]
                    y_tile[t, i] = skip[i] * u_tile[t, i]
                for n in range(n_states):
                    b_n = b[t, n]
                    c_n = c[t, n]
                    for i in range(LANES):
                        decay_n = exp2(step[t, i] * a[n, i])
                        h_new = decay_n * before[n, i] + drive[t, i] * b_n
                        decay[t, n, i] = decay_n
                        h[t, n, i] = h_new
                        y_tile[t, i] += h_new * c_n
            if z.shape[0] > 0:
                _gather(z[item, own], start, gate)
                for t in range(steps):
                    for i in range(LANES):
                        sigma = sigmoid(gate[t, i])
                        silu = gate[t, i] * sigma
                        dz_tile[t, i] = dy[t, i] * y_tile[t, i] * (sigma + silu - silu * sigma)
                        dy[t, i] *= silu
                _scatter(dz_tile, start, dz[item, own])
            # Backwards through the steps; dh is the gradient of the state after step t, through later steps only.
            for t in range(steps - 1, -1, -1):
                for i in range(LANES):
                    ddrive[i] = zero
                    dstep[i] = zero
                for n in range(n_states):
                    b_n = b[t, n]
                    c_n = c[t, n]
                    db_n = zero
                    dc_n = zero
                    for i in range(LANES):
                        dh_n = dh[n, i] + c_n * dy[t, i]
                        dc_n += dy[t, i] * h[t, n, i]
                        db_n += dh_n * drive[t, i]
                        ddrive[i] += dh_n * b_n
                        ddecay = dh_n * (h[t, n, i] - drive[t, i] * b_n)  # times the decay itself
                        dstep[i] += ddecay * a[n, i]
                        da[n, i] += ddecay * step[t, i]
                        dh[n, i] = dh_n * decay[t, n, i]
                    db[t, n] = db_n
                    dc[t, n] = dc_n
                for i in range(LANES):
                    dskip[i] += dy[t, i] * u_tile[t, i]
                    du_tile[t, i] = ddrive[i] * step[t, i] + skip[i] * dy[t, i]
                    ddelta_tile[t, i] = dstep[i] * ln_2 + ddrive[i] * u_tile[t, i]
                if delta_softplus:
                    for i in range(LANES):
                        ddelta_tile[t, i] *= sigmoid(raw[t, i])
                for i in range(LANES):
                    dshift[i] += ddelta_tile[t, i]
            _scatter(du_tile, start, du[item, own])
            _scatter(ddelta_tile, start, ddelta[item, own])
            _scatter(db, start, dB[tile])
            _scatter(dc, start, dC[tile])
        dA[item, own] = da[:, :width].T
        dD[item, own] = dskip[:width]
        dbias[item, own] = dshift[:width]
