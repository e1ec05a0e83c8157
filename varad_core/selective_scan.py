"""The selective scan: the recurrence at the heart of the predictor, one signature for every backend.

For each batch item b, channel d (of group g) and step l, with N states per channel:

    step  = softplus(delta[b, d, l] + delta_bias[d])                    (softplus if `delta_softplus`)
    h[n]  = exp(step * A[d, n]) * h[n] + step * B[b, g, n, l] * u[b, d, l]
    y     = sum_n C[b, g, n, l] * h[n] + D[d] * u[b, d, l]              (h = 0 before the first step)
    out   = y * silu(z[b, d, l])

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, sections 3.2-3.3; argument
names, shapes and meaning are those of `mamba_ssm`'s `selective_scan_fn`.

    backend     where         what
    reference   any           step loop in torch; in float64 the oracle of the tests
    chunked     any           two-level scan in torch; the benchmarks' peer
    numba       CPU           compiled kernel with its own backward, float32 and float64
    mamba       CUDA          mamba_ssm's kernel (the extra `gpu`)
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor

from varad_core.selective_scan_torch import chunked_scan, reference_scan

Backend = Literal["auto", "reference", "chunked", "numba", "mamba"]
Scan = Callable[
    [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, bool], Tensor
]


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
        backend: who computes it. `auto` takes, on CUDA, mamba where installed, else chunked; on a CPU, numba
            for float32 and float64, else chunked.

    Returns:
        (Bt, D, L) in the dtype of u. Differentiable once in every tensor argument.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together, or an unknown backend.
        RuntimeError: the backend asked for by name cannot run here; the message says what is missing.
    """
    if B.dim() == 3:
        B = B.unsqueeze(1)
    if C.dim() == 3:
        C = C.unsqueeze(1)
    _check(u, delta, A, B, C, D, z, delta_bias)
    scan = _choose(backend, u)
    return scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)


def _choose(backend: str, u: Tensor) -> Scan:
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
    names = ", ".join(get_args(Backend))
    raise ValueError(f"selective_scan: unknown backend {backend!r}; choose one of {names}")


def _fastest(u: Tensor) -> Backend:
    if u.is_cuda:
        return "mamba" if find_spec("mamba_ssm") and u.dtype != torch.float64 else "chunked"
    return "numba" if find_spec("numba") and u.dtype in (torch.float32, torch.float64) else "chunked"


def _numba(u: Tensor) -> Scan:
    if u.device.type != "cpu" or u.dtype not in (torch.float32, torch.float64):
        raise RuntimeError(
            f"selective_scan: backend 'numba' takes float32 or float64 on a CPU, got {u.dtype} on {u.device}; "
            "use backend='auto'"
        )
    try:
        from varad_core.selective_scan_cpu import numba_scan
    except ImportError as error:
        raise RuntimeError(
            f"selective_scan: backend 'numba' cannot run: {error}; pip install numba"
        ) from error
    return numba_scan


def _mamba(u: Tensor) -> Scan:
    if not u.is_cuda or u.dtype == torch.float64:
        raise RuntimeError(
            f"selective_scan: backend 'mamba' takes float32, float16 or bfloat16 on CUDA, got {u.dtype} on "
            f"{u.device}; use backend='auto'"
        )
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError as error:
        raise RuntimeError(
            f"selective_scan: backend 'mamba' cannot run: {error}; mamba-ssm needs nvcc and the CUDA torch it was "
            "built for: pip install --no-build-isolation 'varad-station[gpu]'"
        ) from error

    def mamba_scan(
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
        # Its weights are float32 whatever the input is.
        D, delta_bias = (None if x is None else x.float() for x in (D, delta_bias))
        y: Tensor = selective_scan_fn(u, delta, A.float(), B, C, D, z, delta_bias, delta_softplus)
        return y

    return mamba_scan


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    if u.dim() != 3 or 0 in u.shape:
        raise ValueError(
            f"selective_scan: u must be (batch, channels, length) and not empty, got {tuple(u.shape)}"
        )
    if not u.is_floating_point():
        raise ValueError(f"selective_scan: u must be floating point, got {u.dtype}")
    batch, channels, length = u.shape
    if A.dim() != 2 or A.shape[0] != channels or A.shape[1] == 0:
        raise ValueError(f"selective_scan: A must be ({channels}, states) to fit u, got {tuple(A.shape)}")
    states = A.shape[1]
    groups = B.shape[1] if B.dim() == 4 else 0
    if groups == 0 or channels % groups:
        raise ValueError(
            f"selective_scan: B must be ({batch}, groups, {states}, {length}) with groups dividing {channels}, "
            f"got {tuple(B.shape)}"
        )
    data = {"u": u, "delta": delta, "B": B, "C": C, "z": z}
    weights = {"A": A, "D": D, "delta_bias": delta_bias}
    expected = {
        "delta": (batch, channels, length),
        "B": (batch, groups, states, length),
        "C": (batch, groups, states, length),
        "z": (batch, channels, length),
        "D": (channels,),
        "delta_bias": (channels,),
    }
    for name, x in (data | weights).items():
        if x is None:
            continue
        if name in expected and x.shape != expected[name]:
            raise ValueError(
                f"selective_scan: {name} must be {expected[name]} to fit u and A, got {tuple(x.shape)}"
            )
        # Weights may stay in float32 beside half-precision data.
        float32_weight = name in weights and x.dtype == torch.float32 and u.dtype.itemsize == 2
        if x.dtype != u.dtype and not float32_weight:
            raise ValueError(f"selective_scan: {name} must be {u.dtype} like u, got {x.dtype}")
        if x.device != u.device:
            raise ValueError(f"selective_scan: {name} must be on {u.device} like u, got {x.device}")
