"""The selective scan: the recurrence at the heart of the predictor, one signature for every backend.

For each batch item b, channel d (of group g) and step l, with N states per channel:

    step  = softplus(delta[b, d, l] + delta_bias[d])                    (softplus if `delta_softplus`)
    h[n]  = exp(step * A[d, n]) * h[n] + step * B[b, g, n, l] * u[b, d, l]
    y     = sum_n C[b, g, n, l] * h[n] + D[d] * u[b, d, l]              (h = 0 before the first step)
    out   = y * silu(z[b, d, l])

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, sections 3.2 and 3.3;
argument names, shapes and meaning are those of `mamba_ssm`'s `selective_scan_fn`.

    backend     where   what
    reference   any     step loop in torch; in float64 the oracle of the tests
    chunked     any     two-level scan in torch; the benchmarks' peer
    numba       CPU     compiled kernels with their own backward pass, float32 and float64
    mamba       CUDA    mamba_ssm's kernel (the extra `gpu`)
    triton      CUDA    our own kernels, for where mamba_ssm is not installed
"""

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor

from varad_core.selective_scan_inputs import ScanInputs, check_inputs
from varad_core.selective_scan_torch import chunked_scan, reference_scan

Backend = Literal["auto", "reference", "chunked", "numba", "mamba", "triton"]


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Run the recurrence along the last axis.

    Args:
        u: input, (Bt, D, L).
        delta: step sizes before bias and softplus, (Bt, D, L).
        A: decay rates, (D, N); negative for a stable system.
        B: input weights, (Bt, G, N, L) with G dividing D (group g owns channels g*D/G and on), or (Bt, N, L).
        C: output weights, shaped like B.
        D: skip weights, (D,).
        z: gate, (Bt, D, L).
        delta_bias: added to delta, (D,).
        delta_softplus: pass delta through softplus.
        backend: who computes it. `auto` takes, on CUDA, mamba where installed, else triton, else chunked; on
            a CPU, numba for float32 and float64, else chunked.

    Returns:
        (Bt, D, L) in the dtype of u. Differentiable once in every tensor argument.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together, or an unknown backend.
        RuntimeError: the backend asked for by name cannot run here; the message says what is missing.
    """
    B, C = (x.unsqueeze(1) if x.dim() == 3 else x for x in (B, C))
    inputs = ScanInputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    check_inputs(inputs)
    return _choose(backend, u)(inputs)


def _choose(backend: str, u: Tensor) -> Callable[[ScanInputs], Tensor]:
    if backend == "auto":
        backend = _fastest(u)
    match backend:
        case "reference":
            return reference_scan
        case "chunked":
            return chunked_scan
        case "numba":
            return _numba(u)
        case "mamba":
            return _mamba(u)
        case "triton":
            return _triton(u)
    names = ", ".join(get_args(Backend))
    raise ValueError(f"selective_scan: unknown backend {backend!r}; choose one of {names}")


def _fastest(u: Tensor) -> Backend:
    if u.is_cuda:
        if find_spec("mamba_ssm") and u.dtype != torch.float64:
            return "mamba"
        return "triton" if find_spec("triton") else "chunked"
    compiled = u.device.type == "cpu" and u.dtype in (torch.float32, torch.float64) and find_spec("numba")
    return "numba" if compiled else "chunked"


def _numba(u: Tensor) -> Callable[[ScanInputs], Tensor]:
    if u.device.type != "cpu" or u.dtype not in (torch.float32, torch.float64):
        raise RuntimeError(
            "selective_scan: backend 'numba' takes float32 or float64 on a CPU, "
            f"got {u.dtype} on {u.device}; use backend='auto'"
        )
    try:
        from varad_core.selective_scan_cpu import numba_scan
    except ImportError as error:
        raise RuntimeError(
            f"selective_scan: backend 'numba' cannot run: {error}; pip install numba"
        ) from error
    return numba_scan


def _mamba(u: Tensor) -> Callable[[ScanInputs], Tensor]:
    if not u.is_cuda or u.dtype == torch.float64:
        raise RuntimeError(
            "selective_scan: backend 'mamba' takes float32, float16 or bfloat16 on CUDA, "
            f"got {u.dtype} on {u.device}; use backend='auto'"
        )
    try:  # needs its compiled extension, so it fails where that was built for another torch
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError as error:
        raise RuntimeError(
            f"selective_scan: backend 'mamba' cannot run: {error}; with nvcc and a CUDA torch at hand, "
            "pip install --no-build-isolation mamba-ssm"
        ) from error

    def mamba_scan(inputs: ScanInputs) -> Tensor:
        # Its weights are float32 whatever the data are.
        A, D, bias = (x if x is None else x.float() for x in (inputs.A, inputs.D, inputs.delta_bias))
        u, delta, B, C, z = inputs.u, inputs.delta, inputs.B, inputs.C, inputs.z
        y: Tensor = selective_scan_fn(u, delta, A, B, C, D, z, bias, inputs.delta_softplus)
        return y

    return mamba_scan


def _triton(u: Tensor) -> Callable[[ScanInputs], Tensor]:
    if not u.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(
            f"selective_scan: backend 'triton' runs on CUDA, got {u.device}; use backend='auto' "
            "(or set TRITON_INTERPRET=1 before starting, to test its kernels on a CPU)"
        )
    try:
        from varad_core.selective_scan_triton import triton_scan
    except ImportError as error:
        raise RuntimeError(
            f"selective_scan: backend 'triton' cannot run: {error}; pip install triton"
        ) from error
    return triton_scan
