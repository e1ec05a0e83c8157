"""The Triton kernels on a CPU, through Triton's interpreter, against the float64 step loop.

The interpreter must be chosen before triton is imported: the comparison is a process of its own, this file.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

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


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed (the extra dev, on Linux)")
@pytest.mark.parametrize("data", ["fp32", "fp16", "bf16", "fp64"])
@pytest.mark.parametrize("kernel", ["forward", "forward, states kept", "backward"])
def test_triton_kernels_compile_for_a_gpu(
    kernel: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To machine code of an H100, for which no GPU is needed."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from varad_core import selective_scan_triton as kernels

    function = kernels._backward_kernel if kernel == "backward" else kernels._forward_kernel
    double = data == "fp64"
    constants: dict[str, Any] = {
        "SOFTPLUS": True,
        "GATE": True,
        "CHUNK": kernels.STEPS,
        "CHANNELS": kernels.CHANNELS,
        "STATES": 16,
        "REAL": tl.float64 if double else tl.float32,
        "KEEP_STATES": kernel == "forward, states kept",
    }
    accumulated = {f"{name}_ptr" for name in ("states", "scratch", "dA", "dB", "dC", "dD", "dbias")}
    types = {}
    for name in function.arg_names:
        if name in constants:
            types[name] = "constexpr"
        elif name.endswith("_ptr"):
            types[name] = ("*fp64" if double else "*fp32") if name in accumulated else f"*{data}"
        else:
            types[name] = "i32"
    source = ASTSource(
        fn=function,
        signature=types,
        constexprs={(index,): constants[name] for index, name in enumerate(types) if name in constants},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    assert len(compiled.asm["cubin"]) > 1000


if __name__ == "__main__":
    import torch
    from test_selective_scan import arguments, assert_matches_reference

    for case, shape in CASES.items():
        assert_matches_reference(arguments(**shape), "triton", tolerance=1e-12)
        single = arguments(**shape, dtype=torch.float32)
        assert_matches_reference(single, "triton", tolerance=3e-6)
        print(case)
