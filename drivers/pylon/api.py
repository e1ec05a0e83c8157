"""The one place that imports pypylon."""

import re
import warnings

with warnings.catch_warnings():
    # SWIG's types lack __module__; with warnings as errors the import would crash the interpreter.
    warnings.simplefilter("ignore", DeprecationWarning)
    from pypylon import genicam, pylon

__all__ = ["genicam", "line_of", "pylon"]


def line_of(error: Exception) -> str:
    """A GenICam message without the place in its C++ source."""
    return re.sub(r"\s*: \w+ thrown .*", "", str(error).strip().splitlines()[0])
