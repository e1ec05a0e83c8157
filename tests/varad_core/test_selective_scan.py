"""Every backend of the recurrence against the float64 step loop, and what it refuses."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from varad_core.selective_scan import selective_scan

FAST_BACKENDS = ["chunked", "numba"]
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")

Arguments = dict[str, Tensor]


def arguments(
    batch=2, channels=6, length=20, states=4, groups=1, *, without=(), dtype=torch.float64, seed=0
) -> Arguments:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    made = {
        "u": normal(batch, channels, length),
        "delta": normal(batch, channels, length) - 1,
        "A": -normal(channels, states).exp(),
        "B": normal(batch, groups, states, length),
        "C": normal(batch, groups, states, length),
        "D": normal(channels),
        "z": normal(batch, channels, length),
        "delta_bias": normal(channels) / 4,
    }
    return {name: x.to(dtype) for name, x in made.items() if name not in without}


def output_and_gradients(inputs: Arguments, backend: str, *, delta_softplus=True) -> Arguments:
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    y = selective_scan(**leaves, delta_softplus=delta_softplus, backend=backend)
    generator = torch.Generator().manual_seed(1)
    y.backward(torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype))
    return {"y": y.detach()} | {name: x.grad for name, x in leaves.items()}


def assert_matches_reference(
    inputs: Arguments, backend: str, *, tolerance: float, delta_softplus=True
) -> None:
    """Compare with the step loop in float64, relative to each array's largest value."""
    actual = output_and_gradients(inputs, backend, delta_softplus=delta_softplus)
    exact = {name: x.double() for name, x in inputs.items()}
    expected = output_and_gradients(exact, "reference", delta_softplus=delta_softplus)
    for name, x in expected.items():
        assert actual[name].dtype == inputs["u"].dtype
        error = (actual[name] - x).abs().max().item()
        assert error <= tolerance * max(1.0, x.abs().max().item()), f"{name}: error {error}"


def step_by_hand(inputs: Arguments, b: int, d: int) -> list[float]:
    """The module docstring's formulas for one channel, in Python floats."""
    _, groups, states, length = inputs["B"].shape
    g = d // (inputs["u"].shape[1] // groups)
    h = [0.0] * states
    out = []
    for t in range(length):
        u, z = inputs["u"][b, d, t].item(), inputs["z"][b, d, t]
        step = torch.log1p(torch.exp(inputs["delta"][b, d, t] + inputs["delta_bias"][d])).item()
        y = inputs["D"][d].item() * u
        for n in range(states):
            decay = torch.exp(step * inputs["A"][d, n]).item()
            h[n] = decay * h[n] + step * inputs["B"][b, g, n, t].item() * u
            y += inputs["C"][b, g, n, t].item() * h[n]
        out.append(y * (z * torch.sigmoid(z)).item())
    return out


@pytest.mark.parametrize("backend", ["reference", *FAST_BACKENDS])
def test_output_is_the_formula_evaluated_by_hand(backend):
    inputs = arguments(channels=6, length=7, states=3, groups=3)
    y = selective_scan(**inputs, delta_softplus=True, backend=backend)
    for b, d in ((0, 0), (0, 3), (1, 5)):
        torch.testing.assert_close(y[b, d], torch.tensor(step_by_hand(inputs, b, d), dtype=torch.float64))


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@pytest.mark.parametrize(
    "shape",
    [
        {"length": 1},
        {"length": 150, "states": 3},  # more than one chunk, the last one not full
        {"length": 64, "states": 16},
        {"length": 35, "states": 64},
        {"length": 21, "channels": 200, "states": 5, "groups": 2, "batch": 1},  # several tiles in a group
        {"length": 9, "channels": 1, "states": 1, "batch": 3},
        {"length": 33, "channels": 8, "states": 7, "groups": 4},
    ],
    ids=str,
)
def test_fast_backends_match_the_reference_in_float64(backend, shape):
    assert_matches_reference(arguments(**shape), backend, tolerance=1e-12)


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@pytest.mark.parametrize("states", [16, 64])
def test_fast_backends_are_exact_to_float32_rounding(backend, states):
    inputs = arguments(channels=130, length=200, states=states, groups=2, dtype=torch.float32)
    assert_matches_reference(inputs, backend, tolerance=3e-6)


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@pytest.mark.parametrize("without", [("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")], ids=str)
@pytest.mark.parametrize("delta_softplus", [True, False])
def test_optional_arguments_may_be_left_out(backend, without, delta_softplus):
    inputs = arguments(without=without)
    if not delta_softplus:
        inputs["delta"] = inputs["delta"].abs() / 4
    assert_matches_reference(inputs, backend, tolerance=1e-12, delta_softplus=delta_softplus)


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 3),
    channels_per_group=st.integers(1, 70),
    length=st.integers(1, 90),
    states=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)
def test_any_shape_matches_the_reference(backend, batch, groups, channels_per_group, length, states, seed):
    inputs = arguments(batch, groups * channels_per_group, length, states, groups, seed=seed)
    assert_matches_reference(inputs, backend, tolerance=1e-11)


@pytest.mark.parametrize("backend", ["reference", *FAST_BACKENDS])
def test_gradients_are_those_of_finite_differences(backend):
    inputs = arguments(batch=1, channels=4, length=5, states=3, groups=2)
    leaves = [inputs[name].requires_grad_() for name in NAMES]

    def scan(*tensors: Tensor) -> Tensor:
        return selective_scan(*tensors, delta_softplus=True, backend=backend)

    assert torch.autograd.gradcheck(scan, leaves)


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(cut=st.integers(0, 79), seed=st.integers(0, 2**31))
def test_no_output_depends_on_a_later_input(backend, cut, seed):
    before = arguments(length=80, seed=seed)
    after = dict(before)
    for name in ("u", "delta", "B", "C", "z"):
        after[name] = before[name].clone()
        after[name][..., cut:] += 1
    first, second = (selective_scan(**x, delta_softplus=True, backend=backend) for x in (before, after))
    torch.testing.assert_close(first[..., :cut], second[..., :cut], rtol=0, atol=0)
    assert not torch.equal(first[..., cut], second[..., cut])


@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_groups_are_independent_scans_of_their_own_channels(backend):
    inputs = arguments(channels=6, groups=3)
    together = selective_scan(**inputs, backend=backend)
    for g in range(3):
        own = slice(2 * g, 2 * g + 2)
        alone = {
            name: x[:, g] if name in "BC" else x[own] if name in ("A", "D", "delta_bias") else x[:, own]
            for name, x in inputs.items()
        }
        torch.testing.assert_close(selective_scan(**alone, backend=backend), together[:, own])


@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_strides_do_not_matter(backend):
    inputs = arguments(channels=70, length=40, groups=2)
    strided = {
        name: x.transpose(-1, -2).contiguous().transpose(-1, -2) for name, x in inputs.items() if x.dim() > 1
    }
    strided["u"] = torch.cat([inputs["u"], inputs["z"]], dim=1)[:, :70]
    strided = inputs | strided
    assert not strided["delta"].is_contiguous()
    expected, actual = (output_and_gradients(x, backend) for x in (inputs, strided))
    for name, x in expected.items():
        torch.testing.assert_close(actual[name], x)


@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_float32_survives_extreme_step_sizes(backend):
    inputs = arguments(length=12, dtype=torch.float32)
    inputs["delta"] = torch.linspace(-200, 200, 12).expand_as(inputs["delta"]).contiguous()
    inputs["z"] = torch.linspace(200, -200, 12).expand_as(inputs["z"]).contiguous()
    assert_matches_reference(inputs, backend, tolerance=3e-6)


@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "z", "delta_bias"])
@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_nan_is_never_hidden(backend, name):
    inputs = arguments(length=80, dtype=torch.float32)
    inputs[name].view(-1)[0] = torch.nan
    y = selective_scan(**inputs, delta_softplus=True, backend=backend)
    assert y[0, 0].isnan().any()
    assert y[0, 0, -1].isnan() or name in ("C", "z")  # a state never recovers


def test_results_do_not_depend_on_the_number_of_threads():
    inputs = arguments(channels=320, length=300, states=16, dtype=torch.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(output_and_gradients(inputs, "numba"))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(result[name], x) for name, x in results[0].items())


def test_threads_may_scan_at_the_same_time():
    inputs = [
        arguments(channels=256, length=128, states=16, dtype=torch.float32, seed=seed) for seed in range(8)
    ]
    expected = [output_and_gradients(x, "numba") for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        actual = list(pool.map(lambda x: output_and_gradients(x, "numba"), inputs * 3))
    for k, result in enumerate(actual):
        assert all(torch.equal(result[name], x) for name, x in expected[k % 8].items())


FORKED_SCAN = """
import os, sys, torch
from varad_core.selective_scan import selective_scan
torch.set_num_threads(2)
x = torch.ones(1, 256, 256)
def scan():
    return selective_scan(x, x, -torch.ones(256, 16), x[:, :16], x[:, :16], backend="numba")
y = scan()
child = os.fork()
if child == 0:
    os._exit(0 if (scan().numpy() == y.numpy()).all() else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on Windows")
def test_a_forked_child_can_scan():
    subprocess.run([sys.executable, "-c", FORKED_SCAN], check=True, timeout=60)


@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_is_recorded(grad_mode):
    inputs = {name: x.requires_grad_() for name, x in arguments().items()}
    with grad_mode():
        y = selective_scan(**inputs, delta_softplus=True)
    assert y.grad_fn is None
    assert not y.requires_grad


def test_only_the_gradients_asked_for_are_given():
    inputs = arguments()
    inputs["A"].requires_grad_()
    selective_scan(**inputs, delta_softplus=True).sum().backward()
    assert inputs["A"].grad is not None
    assert all(x.grad is None for name, x in inputs.items() if name != "A")


def test_auto_is_the_compiled_kernel_on_a_cpu():
    inputs = arguments(dtype=torch.float32, length=100, channels=70)
    auto = selective_scan(**inputs, delta_softplus=True)
    assert torch.equal(auto, selective_scan(**inputs, delta_softplus=True, backend="numba"))


def test_auto_takes_half_precision_on_a_cpu():
    inputs = arguments(dtype=torch.bfloat16)
    inputs["A"] = inputs["A"].float()
    y = selective_scan(**inputs, delta_softplus=True)
    assert y.dtype == torch.bfloat16
    exact = selective_scan(**{name: x.double() for name, x in inputs.items()}, delta_softplus=True)
    torch.testing.assert_close(y.double(), exact, rtol=0.05, atol=0.2)


@pytest.mark.parametrize(
    ("name", "wrong", "requested"),
    [
        ("u", (6, 20), "(batch, channels, length)"),
        ("u", (2, 6, 0), "(batch, channels, length)"),
        ("delta", (2, 6, 19), "(2, 6, 20)"),
        ("A", (5, 4), "(6, states)"),
        ("B", (2, 5, 4, 20), "groups dividing 6"),
        ("B", (2, 20), "groups dividing 6"),
        ("C", (2, 2, 4, 20), "(2, 1, 4, 20)"),
        ("D", (7,), "(6,)"),
        ("z", (1, 6, 20), "(2, 6, 20)"),
        ("delta_bias", (6, 1), "(6,)"),
    ],
)
def test_a_wrong_shape_is_named_with_the_one_requested(name, wrong, requested):
    inputs = arguments() | {name: torch.zeros(wrong, dtype=torch.float64)}
    with pytest.raises(ValueError, match="selective_scan: " + name) as caught:
        selective_scan(**inputs)
    assert requested in str(caught.value)
    assert str(wrong) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_wrong_dtype_is_named(name):
    inputs = arguments()
    inputs[name] = inputs[name].float()
    with pytest.raises(ValueError, match=f"{name} must be torch.float64 like u, got torch.float32"):
        selective_scan(**inputs)


def test_integers_are_refused():
    with pytest.raises(ValueError, match=r"floating point, got torch\.int64"):
        selective_scan(**{name: x.long() for name, x in arguments().items()})


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown backend 'cuda'; choose one of auto, reference"):
        selective_scan(**arguments(), backend="cuda")


def test_a_backend_asked_for_by_name_says_why_it_cannot_run(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match=r"'mamba' takes .* on CUDA, got torch\.float32 on cpu"):
        selective_scan(**arguments(dtype=torch.float32), backend="mamba")
    with pytest.raises(RuntimeError, match=r"'triton' runs on CUDA, got cpu"):
        selective_scan(**arguments(dtype=torch.float32), backend="triton")
    with pytest.raises(RuntimeError, match=r"'numba' takes float32 or float64 on a CPU, got torch\.bfloat16"):
        selective_scan(**arguments(dtype=torch.bfloat16), backend="numba")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(
    ("backend", "package"), [("mamba", "mamba_ssm"), ("triton", "triton"), ("chunked", "torch")]
)
def test_backends_match_the_reference_on_cuda(backend, package, groups):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    inputs = arguments(channels=6, length=150, states=16, groups=groups, dtype=torch.float32)
    actual = output_and_gradients({name: x.cuda() for name, x in inputs.items()}, backend)
    expected = output_and_gradients({name: x.double() for name, x in inputs.items()}, "reference")
    for name, x in expected.items():
        torch.testing.assert_close(actual[name].cpu().double(), x, rtol=1e-3, atol=1e-3)
