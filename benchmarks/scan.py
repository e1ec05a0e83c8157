"""Speed of the recurrence: every backend that runs here, beside `chunked` in the same run.

Backends take turns, so that a change in the machine's load meets all of them; the ratio is the median over
the rounds of (chunked's time / backend's time) within a round.
"""

import argparse
import statistics
import time
from importlib.util import find_spec
from typing import Any, get_args

import torch
from torch import Tensor

from benchmarks.reporting import print_facts, print_table
from varad_core.selective_scan import Backend, selective_scan

PEER: Backend = "chunked"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backends", nargs="+", choices=get_args(Backend), help="default: all fast ones here"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--lengths", nargs="+", type=int, default=[256, 1369, 4096], metavar="L")
    parser.add_argument("--states", nargs="+", type=int, default=[16, 64], metavar="N")
    parser.add_argument("--channels", type=int, default=768, metavar="D")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="of the CPU backends; default: torch's own choice")


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.threads:
        torch.set_num_threads(args.threads)
    backends = args.backends or _fast_backends(args.device)
    backends = [PEER, *(b for b in backends if b != PEER)]
    setting = {
        "batch": args.batch,
        "channels": args.channels,
        "groups": 1,
        "dtype": "float32",
        "arguments": "all (skip, gate, bias, softplus)",
        "device": args.device,
        "threads": torch.get_num_threads(),
        "rounds": args.rounds,
    }
    print_facts(setting)
    cases = [
        case
        for states in args.states
        for length in args.lengths
        for training in (False, True)
        for case in _compare(length, states, training, backends, args)
    ]
    rows = [[f"{x:.2f}" if isinstance(x, float) else str(x) for x in case.values()] for case in cases]
    print_table(list(cases[0]), rows)
    return {"setting": setting, "cases": cases}


def _compare(
    length: int, states: int, training: bool, backends: list[Backend], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Time one size, one row per backend."""
    inputs = scan_inputs(args.batch, args.channels, length, states, args.device)
    seconds = _take_turns(inputs, backends, training, args.rounds)
    return [
        {
            "d_state": states,
            "length": length,
            "pass": "fwd+bwd" if training else "fwd",
            "backend": backend,
            "median_ms": statistics.median(seconds[backend]) * 1e3,
            "fastest_ms": min(seconds[backend]) * 1e3,
            "times_faster_than_chunked": statistics.median(
                peer / own for peer, own in zip(seconds[PEER], seconds[backend], strict=True)
            ),
        }
        for backend in backends
    ]


def _fast_backends(device: str) -> list[Backend]:
    if torch.device(device).type == "cuda":
        candidates: list[tuple[Backend, str]] = [("mamba", "mamba_ssm"), ("triton", "triton")]
        return [PEER, *(backend for backend, package in candidates if find_spec(package))]
    return [PEER, "numba"]


def scan_inputs(batch: int, channels: int, length: int, states: int, device: str) -> dict[str, Tensor]:
    """Return arguments as in a fresh model: A = -(1 ... N), steps of 0.001 to 0.1."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    steps = torch.empty(channels).uniform_(-6.9, -2.3, generator=generator).exp()
    made = {
        "u": normal(batch, channels, length),
        "delta": 0.1 * normal(batch, channels, length),
        "A": -torch.arange(1.0, states + 1).repeat(channels, 1),
        "B": normal(batch, 1, states, length),
        "C": normal(batch, 1, states, length),
        "D": torch.ones(channels),
        "z": normal(batch, channels, length),
        "delta_bias": steps.expm1().log(),  # the inverse of softplus
    }
    return {name: x.to(device) for name, x in made.items()}


def _take_turns(
    inputs: dict[str, Tensor], backends: list[Backend], training: bool, rounds: int
) -> dict[Backend, list[float]]:
    """Return each backend's seconds, round by round, after one round that is not counted."""
    seconds: dict[Backend, list[float]] = {backend: [] for backend in backends}
    for turn in range(rounds + 1):
        for backend in backends:
            elapsed_s = _time(inputs, backend, training)
            if turn > 0:
                seconds[backend].append(elapsed_s)
    return seconds


def _time(inputs: dict[str, Tensor], backend: Backend, training: bool) -> float:
    arguments = {name: x.detach().requires_grad_(training) for name, x in inputs.items()}
    gradient = torch.ones_like(inputs["u"])
    _wait(inputs["u"].device)
    start = time.perf_counter()
    y = selective_scan(**arguments, delta_softplus=True, backend=backend)
    if training:
        y.backward(gradient)
    _wait(y.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
