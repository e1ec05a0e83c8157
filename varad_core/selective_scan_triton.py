"""The recurrence on CUDA where mamba_ssm is not installed: Triton kernels, forward and backward.

A program owns `CHANNELS` channels of one group and batch item with all their states in registers, and walks
along the sequence. For the backward pass the forward pass keeps the state before every `STEPS` steps; those
between are computed again into a scratch buffer. Every sum has one order: results do not vary between runs.

With TRITON_INTERPRET=1 in the environment the kernels run, slowly, on a CPU: that is how they are tested.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from varad_core.selective_scan_autograd import differentiable_scan
from varad_core.selective_scan_inputs import ScanInputs

CHANNELS = 16
STEPS = 64


def triton_scan(inputs: ScanInputs) -> Tensor:
    """Run the recurrence on checked arguments on one CUDA device, in float32 (float64 for float64 data)."""
    return differentiable_scan(_forward, _backward, inputs)


def _forward(inputs: ScanInputs, keep_states: bool) -> tuple[Tensor, Tensor]:
    """Return y (Bt, D, L) and, if `keep_states`, the state before each chunk (Bt, D, chunks, N)."""
    u, A = inputs.u, inputs.A
    chunks = -(-u.shape[2] // STEPS) if keep_states else 0
    states = A.new_empty(*u.shape[:2], chunks, A.shape[1], dtype=_accumulator(u))
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    grid, arguments, options = _launch(inputs)
    with torch.cuda.device_of(u):
        _forward_kernel[grid](*arguments, states, y, KEEP_STATES=keep_states, **options)
    return y, states


def _backward(dy: Tensor, inputs: ScanInputs, states: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of the tensors of `inputs`, in their order; None for those not given."""
    u, _, A, B, _, D, z, delta_bias, _ = inputs
    batch, channels, length = u.shape
    groups, n_states = B.shape[1:3]
    grid, arguments, options = _launch(inputs)
    du = torch.empty_like(u, memory_format=torch.contiguous_format)
    ddelta = torch.empty_like(du)
    dz = torch.empty_like(du) if z is not None else du
    # One slice per program, summed below.
    dA = states.new_empty(batch, channels, n_states)
    dB, dC = states.new_empty(2, batch, groups, grid[1] // groups, n_states, length)
    dD, dbias = states.new_empty(2, batch, channels)
    scratch = states.new_empty(batch, channels, STEPS, n_states)
    outputs = (states, scratch, dy.contiguous(), du, ddelta, dA, dB, dC, dD, dz, dbias)
    with torch.cuda.device_of(u):
        _backward_kernel[grid](*arguments, *outputs, **options)
    return (
        du,
        ddelta,
        dA.sum(0).to(A.dtype),
        dB.sum(2).to(B.dtype),
        dC.sum(2).to(B.dtype),
        dD.sum(0).to(D.dtype) if D is not None else None,
        dz if z is not None else None,
        dbias.sum(0).to(delta_bias.dtype) if delta_bias is not None else None,
    )


def _accumulator(u: Tensor) -> torch.dtype:
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def _launch(inputs: ScanInputs) -> tuple[tuple[int, int], tuple[Any, ...], dict[str, Any]]:
    """Return the grid (Bt, programs per batch item), the arguments and the constants both kernels share."""
    u, delta, A, B, C, D, z, delta_bias, delta_softplus = inputs
    batch, channels, length = u.shape
    groups, n_states = B.shape[1:3]
    per_group = channels // groups
    absent = A.new_zeros(channels)
    tensors = (u, delta, A, B, C, absent if D is None else D, u if z is None else z)
    arguments = (
        *(x.contiguous() for x in tensors),
        absent if delta_bias is None else delta_bias.contiguous(),
        length,
        groups,
        per_group,
        n_states,
    )
    options = {
        "SOFTPLUS": delta_softplus,
        "GATE": z is not None,
        "CHUNK": STEPS,
        "CHANNELS": CHANNELS,
        "STATES": triton.next_power_of_2(n_states),
        "REAL": tl.float64 if u.dtype == torch.float64 else tl.float32,
        "num_warps": 4,
    }
    return (batch, groups * -(-per_group // CHANNELS)), arguments, options


@triton.jit
def _softplus(x):  # type: ignore[no-untyped-def]
    # log(w) * e / (w - 1) is log1p(e) to rounding: the error of w = 1 + e cancels.
    e = tl.exp(tl.minimum(x, 20.0))
    w = 1.0 + e
    log1p = tl.where(w == 1.0, e, tl.log(w) * (e / tl.where(w == 1.0, 1.0, w - 1.0)))
    return tl.where(x > 20.0, x, log1p)


@triton.jit  # type: ignore[untyped-decorator]
def _forward_kernel(  # type: ignore[no-untyped-def]
    u_ptr, delta_ptr, A_ptr, B_ptr, C_ptr, D_ptr, z_ptr, bias_ptr, length, groups, per_group, n_states,
    states_ptr, y_ptr,
    SOFTPLUS: tl.constexpr, GATE: tl.constexpr, CHUNK: tl.constexpr, CHANNELS: tl.constexpr,
    STATES: tl.constexpr, REAL: tl.constexpr, KEEP_STATES: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(per_group, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) // blocks
    offset = (tl.program_id(1) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    real = offset < per_group
    real_n = n < n_states
    both = real[:, None] & real_n[None, :]
    d = group * per_group + offset
    row = (item * groups * per_group + d) * length
    bc = ((item * groups + group) * n_states + n) * length
    chunks = tl.cdiv(length, CHUNK)
    checkpoint = (item * groups * per_group + d[:, None]) * chunks * n_states + n[None, :]
    A = tl.load(A_ptr + d[:, None] * n_states + n[None, :], both, 0.0).to(REAL)
    skip = tl.load(D_ptr + d, real, 0.0).to(REAL)
    bias = tl.load(bias_ptr + d, real, 0.0).to(REAL)
    h = tl.zeros((CHANNELS, STATES), REAL)
    for t in range(0, length):
        if KEEP_STATES:  # noqa: SIM102 (a constant: the compiler drops the branch)
            if t % CHUNK == 0:
                tl.store(states_ptr + checkpoint + (t // CHUNK) * n_states, h, both)
        u = tl.load(u_ptr + row + t, real, 0.0).to(REAL)
        step = tl.load(delta_ptr + row + t, real, 0.0).to(REAL) + bias
        if SOFTPLUS:
            step = _softplus(step)
        b = tl.load(B_ptr + bc + t, real_n, 0.0).to(REAL)
        c = tl.load(C_ptr + bc + t, real_n, 0.0).to(REAL)
        h = tl.exp(step[:, None] * A) * h + (step * u)[:, None] * b[None, :]
        y = tl.sum(h * c[None, :], 1) + skip * u
        if GATE:
            z = tl.load(z_ptr + row + t, real, 0.0).to(REAL)
            y = y * z / (1.0 + tl.exp(-z))
        tl.store(y_ptr + row + t, y, real)


@triton.jit  # type: ignore[untyped-decorator]
def _backward_kernel(  # type: ignore[no-untyped-def]  # noqa: PLR0915
    u_ptr, delta_ptr, A_ptr, B_ptr, C_ptr, D_ptr, z_ptr, bias_ptr, length, groups, per_group, n_states,
    states_ptr, scratch_ptr, dout_ptr, du_ptr, ddelta_ptr, dA_ptr, dB_ptr, dC_ptr, dD_ptr, dz_ptr, dbias_ptr,
    SOFTPLUS: tl.constexpr, GATE: tl.constexpr, CHUNK: tl.constexpr, CHANNELS: tl.constexpr,
    STATES: tl.constexpr, REAL: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(per_group, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) // blocks
    offset = (tl.program_id(1) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    real = offset < per_group
    real_n = n < n_states
    both = real[:, None] & real_n[None, :]
    d = group * per_group + offset
    channel = item * groups * per_group + d
    row = channel * length
    bc = ((item * groups + group) * n_states + n) * length
    own_bc = ((item * groups * blocks + tl.program_id(1)) * n_states + n) * length
    chunks = tl.cdiv(length, CHUNK)
    checkpoint = channel[:, None] * chunks * n_states + n[None, :]
    scratch = channel[:, None] * CHUNK * n_states + n[None, :]
    A = tl.load(A_ptr + d[:, None] * n_states + n[None, :], both, 0.0).to(REAL)
    skip = tl.load(D_ptr + d, real, 0.0).to(REAL)
    bias = tl.load(bias_ptr + d, real, 0.0).to(REAL)
    dh = tl.zeros((CHANNELS, STATES), REAL)  # the state's gradient through later steps only
    dA = tl.zeros((CHANNELS, STATES), REAL)
    dskip = tl.zeros((CHANNELS,), REAL)
    dbias = tl.zeros((CHANNELS,), REAL)
    for k in range(0, chunks):
        start = (chunks - 1 - k) * CHUNK
        steps = tl.minimum(CHUNK, length - start)
        # The state before each of the chunk's steps.
        h = tl.load(states_ptr + checkpoint + (chunks - 1 - k) * n_states, both, 0.0)
        for i in range(0, steps):
            tl.store(scratch_ptr + scratch + i * n_states, h, both)
            u = tl.load(u_ptr + row + start + i, real, 0.0).to(REAL)
            step = tl.load(delta_ptr + row + start + i, real, 0.0).to(REAL) + bias
            if SOFTPLUS:
                step = _softplus(step)
            b = tl.load(B_ptr + bc + start + i, real_n, 0.0).to(REAL)
            h = tl.exp(step[:, None] * A) * h + (step * u)[:, None] * b[None, :]
        tl.debug_barrier()
        for i in range(0, steps):
            t = start + steps - 1 - i
            u = tl.load(u_ptr + row + t, real, 0.0).to(REAL)
            raw = tl.load(delta_ptr + row + t, real, 0.0).to(REAL) + bias
            step = raw
            if SOFTPLUS:
                step = _softplus(raw)
            b = tl.load(B_ptr + bc + t, real_n, 0.0).to(REAL)
            c = tl.load(C_ptr + bc + t, real_n, 0.0).to(REAL)
            before = tl.load(scratch_ptr + scratch + (steps - 1 - i) * n_states, both, 0.0)
            decay = tl.exp(step[:, None] * A)
            drive = step * u
            h = decay * before + drive[:, None] * b[None, :]
            dy = tl.load(dout_ptr + row + t, real, 0.0).to(REAL)
            if GATE:
                z = tl.load(z_ptr + row + t, real, 0.0).to(REAL)
                sigma = 1.0 / (1.0 + tl.exp(-z))
                y = tl.sum(h * c[None, :], 1) + skip * u
                tl.store(dz_ptr + row + t, dy * y * sigma * (1.0 + z * (1.0 - sigma)), real)
                dy = dy * z * sigma
            dh += dy[:, None] * c[None, :]
            tl.store(dC_ptr + own_bc + t, tl.sum(dy[:, None] * h, 0), real_n)
            tl.store(dB_ptr + own_bc + t, tl.sum(dh * drive[:, None], 0), real_n)
            ddrive = tl.sum(dh * b[None, :], 1)
            dh = dh * decay
            dlog_decay = dh * before
            dA += dlog_decay * step[:, None]
            ddelta = tl.sum(dlog_decay * A, 1) + ddrive * u
            if SOFTPLUS:
                ddelta = ddelta / (1.0 + tl.exp(-raw))
            dskip += dy * u
            dbias += ddelta
            tl.store(du_ptr + row + t, ddrive * step + skip * dy, real)
            tl.store(ddelta_ptr + row + t, ddelta, real)
        tl.debug_barrier()
    tl.store(dA_ptr + channel[:, None] * n_states + n[None, :], dA, both)
    tl.store(dD_ptr + channel, dskip, real)
    tl.store(dbias_ptr + channel, dbias, real)
