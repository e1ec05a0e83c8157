"""Elementary functions for compiled kernels, written so that a loop of them becomes vector code.

float32 uses polynomials (a call to the C library cannot be vectorised); float64, which is for tests and
gradient checks, uses the C library. NaN goes through; overflow gives inf and underflow 0.
"""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.extending import overload

# Not "fast": the optimiser must keep NaN and infinity, which stand for a damaged model or image.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
_OPTIONS: Any = {"fastmath": FASTMATH, "error_model": "numpy"}

_F32 = np.float32
_LOG2_E = _F32(math.log2(math.e))
_LOWEST, _HIGHEST = _F32(-127), _F32(128)  # where 2**x is 0 and inf in the exponent bits of a float32
_BIAS, _MANTISSA = _F32(127), _F32(2**23)
_P1, _P2, _P3, _P4, _P5, _P6 = (_F32(math.log(2) ** k / math.factorial(k)) for k in range(1, 7))
_Q3, _Q5, _Q7, _Q9, _Q11, _Q13 = (_F32(2 / k) for k in (3, 5, 7, 9, 11, 13))
_ZERO, _ONE, _TWO = _F32(0), _F32(1), _F32(2)


def exp2(x: Any) -> Any:
    """2**x, relative error below 2e-7 in float32."""
    return np.exp2(x)


def softplus(x: Any) -> Any:
    """log(1 + exp(x)), relative error below 5e-7 in float32."""
    return np.logaddexp(x, 0)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), relative error below 5e-7 in float32."""
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
