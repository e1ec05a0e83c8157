"""The Triton kernels on a CPU, through Triton's interpreter, against the float64 step loop.

The interpreter must be chosen before triton is imported: the comparison is a process of its own, this file.
"""

from importlib.util import find_spec

import pytest
from conftest import run_in_triton_interpreter

CASES = {
    "several groups": {"batch": 2, "channels": 6, "groups": 3, "length": 5, "states": 3},
    "one step": {"length": 1},
    "several programs in a group": {"batch": 1, "channels": 36, "groups": 2, "length": 3, "states": 5},
    "several chunks": {"batch": 1, "channels": 2, "length": 67, "states": 2},
    "no skip, gate or bias": {"length": 4, "without": ("D", "z", "delta_bias")},
}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed (the extra dev, on Linux)")
def test_triton_kernels_match_the_reference():
    assert run_in_triton_interpreter(__file__).splitlines() == list(CASES)


if __name__ == "__main__":
    import torch
    from test_selective_scan import arguments, assert_matches_reference

    for case, shape in CASES.items():
        assert_matches_reference(arguments(**shape), "triton", tolerance=1e-12)
        single = arguments(**shape, dtype=torch.float32)
        assert_matches_reference(single, "triton", tolerance=3e-6)
        print(case)
