"""The loops of the CPU recurrence, compiled by numba: one forward kernel, one backward kernel.

How they are fast: the `LANES` channels of a tile lie side by side in vector registers, so the exponential
(nearly all of the work) is vectorised and a step's output needs no sum across lanes. `chunk_steps` steps of a
tile are transposed into small buffers that stay in the cache; softplus, skip and gate happen there too. Lanes
beyond a tile's channels hold zeros, which add nothing to any sum.

Arguments, for both kernels: tiles first to last (exclusive) are computed; u, delta, z (Bt, D, L), z empty for
no gate; A2 = A * log2(e), (D, N); B, C (Bt, G, N, L); D and bias (D,); states (tiles, chunks, N, LANES), the
state before each chunk, empty to store none. Strides are free, but for those of states.

float32 functions are polynomials, as a call to the C library cannot be vectorised; float64, for tests and
gradient checks, uses the C library. They are in this file because numba's cache notices changes in no other.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba.extending import overload
from numpy.typing import NDArray

Array = NDArray[Any]
LANES = 64  # of float32: four vector registers of 512 bits, or eight of 256
BLOCK = 8  # values a side that are transposed at once
LN_2 = math.log(2.0)

# Not all of "fast": NaN, which stands for a damaged model or image, must survive, and division stay exact.
_FASTMATH = {"contract", "reassoc", "nsz"}
_OPTIONS: Any = {"fastmath": _FASTMATH, "error_model": "numpy"}

_F32 = np.float32
_LOG2_E = _F32(math.log2(math.e))
_LOWEST, _HIGHEST = _F32(-127), _F32(128)  # where 2**x is 0 and inf in the exponent bits of a float32
_BIAS, _MANTISSA = _F32(127), _F32(2**23)
_P1, _P2, _P3, _P4, _P5, _P6 = (_F32(math.log(2) ** k / math.factorial(k)) for k in range(1, 7))
_Q3, _Q5, _Q7, _Q9, _Q11, _Q13 = (_F32(2 / k) for k in (3, 5, 7, 9, 11, 13))
_ZERO, _ONE, _TWO = _F32(0), _F32(1), _F32(2)


@functools.cache
def forward_kernel(dtype: torch.dtype) -> Callable[..., None]:
    """Compile the forward kernel for float32 or float64, or load it from the cache on disk."""
    return _compile(_forward_tiles, dtype, outputs="3")


@functools.cache
def backward_kernel(dtype: torch.dtype) -> Callable[..., None]:
    """Compile the backward kernel for float32 or float64, or load it from the cache on disk."""
    return _compile(_backward_tiles, dtype, outputs="3 3 3 3 3 3 2 3 2")


def _compile(kernel: Callable[..., None], dtype: torch.dtype, outputs: str) -> Callable[..., None]:
    """Compile one machine code per dtype, for arrays of any strides; `outputs` are their numbers of axes."""
    real = numba.float32 if dtype == torch.float32 else numba.float64

    def arrays(axes: str) -> list[numba.types.Array]:
        return [numba.types.Array(real, int(ndim), "A") for ndim in axes.split()]

    states = numba.types.Array(real, 4, "C")

    tiles = [numba.int64, numba.int64]
    settings = [numba.boolean, numba.int64]
    signature = numba.void(*tiles, *arrays("3 3 2 4 4 1 3 1"), *settings, states, *arrays(outputs))
    compiled: Callable[..., None] = numba.njit(
        signature, nogil=True, cache=True, fastmath=_FASTMATH, error_model="numpy"
    )(kernel)
    return compiled


def exp2(x: Any) -> Any:
    """2**x, relative error below 3e-7 in float32."""
    return np.exp2(x)


def softplus(x: Any) -> Any:
    """log(1 + exp(x)), relative error below 1e-6 in float32 for |x| < 10, 5e-6 for |x| < 80."""
    return np.logaddexp(x, 0)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), relative error below 1e-6 in float32 for |x| < 10, 5e-6 for |x| < 80."""
    return 1 / (1 + np.exp(-x))


# numba calls these with the argument's type and compiles what they return.


@overload(exp2, jit_options=_OPTIONS)
def _exp2_for(x: Any) -> Callable[[Any], Any]:
    def in_float64(x: Any) -> Any:
        return math.exp(x * math.log(2.0))

    def in_float32(x: Any) -> Any:
        x = _LOWEST if x < _LOWEST else x  # comparisons, as min and max may lose NaN
        x = _HIGHEST if x > _HIGHEST else x
        whole = np.rint(x)
        r = x - whole  # in [-0.5, 0.5]
        p = ((((((_P6 * r + _P5) * r + _P4) * r + _P3) * r + _P2) * r + _P1) * r) + _ONE
        return p * np.int32((whole + _BIAS) * _MANTISSA).view(np.float32)  # the integer's bits are 2**whole

    return in_float32 if x == numba.float32 else in_float64


@overload(softplus, jit_options=_OPTIONS)
def _softplus_for(x: Any) -> Callable[[Any], Any]:
    def in_float64(x: Any) -> Any:
        return math.log1p(math.exp(-abs(x))) + (x if x > 0.0 else 0.0)

    def in_float32(x: Any) -> Any:
        e = exp2(-abs(x) * _LOG2_E)
        s = e / (_TWO + e)  # log1p(e) = 2 atanh(s), and s <= 1/3
        q = s * s
        log1p = s * (((((_Q13 * q + _Q11) * q + _Q9) * q + _Q7) * q + _Q5) * q + _Q3) * q + _TWO * s
        return log1p + (x if x > _ZERO else _ZERO)

    return in_float32 if x == numba.float32 else in_float64


@overload(sigmoid, jit_options=_OPTIONS)
def _sigmoid_for(x: Any) -> Callable[[Any], Any]:
    def in_float64(x: Any) -> Any:
        return 1.0 / (1.0 + math.exp(-x))

    def in_float32(x: Any) -> Any:
        return _ONE / (_ONE + exp2(-x * _LOG2_E))

    return in_float32 if x == numba.float32 else in_float64


_inline = numba.njit(nogil=True, cache=True, fastmath=_FASTMATH, error_model="numpy")


@_inline
def _place(tile: int, channels: int, groups: int) -> tuple[int, int, int, int]:
    """Return batch item, group, first channel and width of a tile."""
    per_group = channels // groups
    tiles_per_group = (per_group + LANES - 1) // LANES
    item, rest = divmod(tile, groups * tiles_per_group)
    group, k = divmod(rest, tiles_per_group)
    return item, group, group * per_group + k * LANES, min(LANES, per_group - k * LANES)


@_inline
def _gather(source: Array, start: int, tile: Array) -> None:
    """Transpose steps `start` and on of source (rows, L) into tile (steps, >= rows); zero the rest."""
    rows, length = source.shape
    steps = min(tile.shape[0], length - start)
    _transpose(source[:, start : start + steps], tile[:steps, :rows])
    tile[:, rows:] = 0


@_inline
def _scatter(tile: Array, start: int, target: Array) -> None:
    """Undo `_gather`: transpose the first columns of tile into steps `start` and on of target."""
    rows, length = target.shape
    steps = min(tile.shape[0], length - start)
    _transpose(tile[:steps, :rows], target[:, start : start + steps])


@_inline
def _transpose(source: Array, target: Array) -> None:
    """Set target to source.T, block by block, so that a cache line is used up before it is lost."""
    rows, columns = source.shape
    whole_rows, whole_columns = rows - rows % BLOCK, columns - columns % BLOCK
    for i in range(0, whole_rows, BLOCK):
        for j in range(0, whole_columns, BLOCK):
            for k in range(BLOCK):
                for m in range(BLOCK):
                    target[j + k, i + m] = source[i + m, j + k]
    for i in range(rows):
        for j in range(whole_columns if i < whole_rows else 0, columns):
            target[j, i] = source[i, j]


def _forward_tiles(  # noqa: PLR0912
    first: int,
    last: int,
    u: Array,
    delta: Array,
    A2: Array,
    B: Array,
    C: Array,
    D: Array,
    z: Array,
    bias: Array,
    delta_softplus: bool,
    chunk_steps: int,
    states: Array,
    y: Array,
) -> None:
    channels, length = u.shape[1:]
    groups, n_states = B.shape[1:3]
    u_tile = np.zeros((chunk_steps, LANES), u.dtype)
    step = np.zeros((chunk_steps, LANES), u.dtype)
    drive = np.zeros((chunk_steps, LANES), u.dtype)
    y_tile = np.zeros((chunk_steps, LANES), u.dtype)
    gate = np.zeros((chunk_steps, LANES), u.dtype)
    b = np.empty((chunk_steps, n_states), u.dtype)
    c = np.empty((chunk_steps, n_states), u.dtype)
    for tile in range(first, last):
        item, group, channel, width = _place(tile, channels, groups)
        own = slice(channel, channel + width)
        a = np.zeros((n_states, LANES), u.dtype)
        a[:, :width] = A2[own].T
        skip = np.zeros(LANES, u.dtype)
        shift = np.zeros(LANES, u.dtype)
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


def _backward_tiles(  # noqa: PLR0912, PLR0915
    first: int,
    last: int,
    u: Array,
    delta: Array,
    A2: Array,
    B: Array,
    C: Array,
    D: Array,
    z: Array,
    bias: Array,
    delta_softplus: bool,
    chunk_steps: int,
    states: Array,
    dout: Array,
    du: Array,
    ddelta: Array,
    dA: Array,
    dB: Array,
    dC: Array,
    dD: Array,
    dz: Array,
    dbias: Array,
) -> None:
    channels, length = u.shape[1:]
    groups, n_states = B.shape[1:3]
    chunks = (length + chunk_steps - 1) // chunk_steps
    ln_2 = u.dtype.type(LN_2)
    zero, one = u.dtype.type(0), u.dtype.type(1)
    u_tile = np.zeros((chunk_steps, LANES), u.dtype)
    raw = np.zeros((chunk_steps, LANES), u.dtype)
    slope = np.zeros((chunk_steps, LANES), u.dtype)  # of softplus
    step = np.zeros((chunk_steps, LANES), u.dtype)
    drive = np.zeros((chunk_steps, LANES), u.dtype)
    y_tile = np.zeros((chunk_steps, LANES), u.dtype)
    gate = np.zeros((chunk_steps, LANES), u.dtype)
    dy = np.zeros((chunk_steps, LANES), u.dtype)
    du_tile = np.zeros((chunk_steps, LANES), u.dtype)
    ddelta_tile = np.zeros((chunk_steps, LANES), u.dtype)
    dz_tile = np.zeros((chunk_steps, LANES), u.dtype)
    b = np.empty((chunk_steps, n_states), u.dtype)
    c = np.empty((chunk_steps, n_states), u.dtype)
    db = np.empty((chunk_steps, n_states), u.dtype)
    dc = np.empty((chunk_steps, n_states), u.dtype)
    decay = np.empty((chunk_steps, n_states, LANES), u.dtype)
    h = np.empty((chunk_steps + 1, n_states, LANES), u.dtype)  # h[t] is the state before step t
    for tile in range(first, last):
        item, group, channel, width = _place(tile, channels, groups)
        own = slice(channel, channel + width)
        a = np.zeros((n_states, LANES), u.dtype)
        a[:, :width] = A2[own].T
        skip = np.zeros(LANES, u.dtype)
        shift = np.zeros(LANES, u.dtype)
        dskip = np.zeros(LANES, u.dtype)
        dshift = np.zeros(LANES, u.dtype)
        ddrive = np.zeros(LANES, u.dtype)
        dstep = np.zeros(LANES, u.dtype)
        skip[:width] = D[own]
        shift[:width] = bias[own]
        da = np.zeros((n_states, LANES), u.dtype)
        dh = np.zeros((n_states, LANES), u.dtype)
        for chunk in range(chunks - 1, -1, -1):
            start = chunk * chunk_steps
            steps = min(chunk_steps, length - start)
            _gather(u[item, own], start, u_tile)
            _gather(delta[item, own], start, raw)
            _gather(B[item, group], start, b)
            _gather(C[item, group], start, c)
            _gather(dout[item, own], start, dy)
            # The chunk's states again, from the one before it.
            h[0] = states[tile, chunk]
            for t in range(steps):
                for i in range(LANES):
                    raw[t, i] += shift[i]
                    step[t, i] = raw[t, i]
                if delta_softplus:
                    for i in range(LANES):
                        step[t, i] = softplus(raw[t, i])
                    for i in range(LANES):
                        slope[t, i] = sigmoid(raw[t, i])
                for i in range(LANES):
                    drive[t, i] = step[t, i] * u_tile[t, i]
                    y_tile[t, i] = skip[i] * u_tile[t, i]
                for n in range(n_states):
                    b_n = b[t, n]
                    c_n = c[t, n]
                    for i in range(LANES):
                        decay_n = exp2(step[t, i] * a[n, i])
                        h_new = decay_n * h[t, n, i] + drive[t, i] * b_n
                        decay[t, n, i] = decay_n
                        h[t + 1, n, i] = h_new
                        y_tile[t, i] += h_new * c_n
            if z.shape[0] > 0:
                _gather(z[item, own], start, gate)
                for t in range(steps):
                    for i in range(LANES):
                        sigma = sigmoid(gate[t, i])
                        silu = gate[t, i] * sigma
                        dz_tile[t, i] = dy[t, i] * y_tile[t, i] * (sigma + silu * (one - sigma))
                        dy[t, i] *= silu
                _scatter(dz_tile, start, dz[item, own])
            # Backwards through the steps; dh: the state's gradient through later steps only.
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
                        dc_n += dy[t, i] * h[t + 1, n, i]
                        db_n += dh_n * drive[t, i]
                        ddrive[i] += dh_n * b_n
                        dh_before = dh_n * decay[t, n, i]
                        dlog_decay = dh_before * h[t, n, i]
                        dstep[i] += dlog_decay * a[n, i]
                        da[n, i] += dlog_decay * step[t, i]
                        dh[n, i] = dh_before
                    db[t, n] = db_n
                    dc[t, n] = dc_n
                for i in range(LANES):
                    dskip[i] += dy[t, i] * u_tile[t, i]
                for i in range(LANES):
                    du_tile[t, i] = ddrive[i] * step[t, i] + skip[i] * dy[t, i]
                for i in range(LANES):
                    ddelta_tile[t, i] = dstep[i] * ln_2 + ddrive[i] * u_tile[t, i]
                if delta_softplus:
                    for i in range(LANES):
                        ddelta_tile[t, i] *= slope[t, i]
                for i in range(LANES):
                    dshift[i] += ddelta_tile[t, i]
            _scatter(du_tile, start, du[item, own])
            _scatter(ddelta_tile, start, ddelta[item, own])
            _scatter(db, start, dB[tile])
            _scatter(dc, start, dC[tile])
        dA[item, own] = da[:, :width].T
        dD[item, own] = dskip[:width]
        dbias[item, own] = dshift[:width]
