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
from typing import Literal

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
        return chunked_scan
    if backend == "reference":
        return reference_scan
    if backend == "chunked":
        return chunked_scan
    raise ValueError(f"selective_scan: unknown backend {backend!r}")


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
    pass
