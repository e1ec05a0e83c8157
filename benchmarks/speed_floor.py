"""How the predictor's time grows with the number of tokens, and how near the recurrence is to what the
machine could do."""

import argparse
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.reporting import print_table
from benchmarks.scan import scan_inputs
from benchmarks.speed_cases import Bundles, in_own_process, shown
from benchmarks.turns import pair_ratio, take_turns
from varad_core.config import TokenizerName, default_config
from varad_core.inspector import keep_large_buffers
from varad_core.model import VarAD, create_model
from varad_core.selective_scan import selective_scan
from varad_core.selective_scan_kernels import exp2
from varad_core.tokenizer import create_tokenizer

COPIED_FLOATS = 2**26  # 256 MiB: beyond every cache
CACHED_FLOATS = 2**12  # 16 KiB a thread fit the first-level cache
EXP_REPEATS, FMA_REPEATS, FMA_CHAIN = 2**15, 2**14, 16  # so that both take about as long as a copy
EXPS = 2  # of one channel, state and position, see `compute_floor_ms`
FMAS = 16

Array = NDArray[np.float32]


def run_growth(args: argparse.Namespace, bundles: Bundles) -> list[dict[str, Any]]:
    cases = [
        in_own_process(predictor_growth, args.grid_sizes, bundles.tokenizer, args.rounds, device)
        for device in args.device
    ]
    for case in cases:
        print(f"Predictor of station ({bundles.tokenizer}) on {case['device']}, batch 1")
        columns = ("tokens", "ms", "ns_per_token", "fastest_ms")
        print_table(columns, [[shown(row[key]) for key in columns] for row in case["rows"]])
        of_medians, of_fastest = shown(case["exponent"]), shown(case["exponent_of_fastest"])
        print(f"time ~ tokens ^ {of_medians} (of the fastest: {of_fastest})")
    return cases


def run_floor(args: argparse.Namespace, bundles: Bundles) -> list[dict[str, Any]]:
    cases = [
        in_own_process(recurrence_floor, args.channels, args.length, states, args.rounds, device)
        for device in args.device
        for states in args.states
    ]
    print("The recurrence, forward and backward, float32, and what it would take at the machine's own rates")
    keys = list(dict.fromkeys(key for case in cases for key in case))[2:]
    header = [f"{case['device']} N={case['d_state']}" for case in cases]
    print_table(["", *header], [[key, *(shown(case.get(key)) for case in cases)] for key in keys])
    return cases


def predictor_growth(
    sizes_px: Sequence[int], tokenizer: TokenizerName, rounds: int, device: str
) -> dict[str, Any]:
    """The station's predictor on grids of several sizes, in turns; weights and tokens are random."""
    keep_large_buffers()  # as the Inspector does
    cases: dict[int, Callable[[], object]] = {}
    for size_px in sizes_px:
        config = default_config("station", tokenizer, size_px)
        backbone = create_tokenizer(tokenizer, size_px, pretrained=False).eval()
        side_px = config.image_size_px
        with torch.inference_mode():
            hierarchies = [torch.randn_like(grid) for grid in backbone(torch.zeros(1, 3, side_px, side_px))]
        shapes = [(grid.shape[1], grid.shape[2], grid.shape[3]) for grid in hierarchies]
        model = create_model(config, shapes).eval().to(device)
        tokens = [grid.to(device) for grid in hierarchies]
        # The coarsest hierarchy's grid is the packed tokens'.
        length = shapes[-1][1] * shapes[-1][2]
        cases[length] = partial(_predict, model, tokens)
    with torch.inference_mode():
        times_ms = take_turns(cases, rounds, device)
    median_ms = {length: statistics.median(times) for length, times in times_ms.items()}
    fastest_ms = {length: min(times) for length, times in times_ms.items()}
    rows = [
        {"tokens": n, "ms": ms, "ns_per_token": ms * 1e6 / n, "fastest_ms": fastest_ms[n]}
        for n, ms in median_ms.items()
    ]
    # Short calls suffer more from others on the machine than long ones; the fastest are nearly free of it.
    return {
        "device": device, "rows": rows,
        "exponent": exponent(median_ms), "exponent_of_fastest": exponent(fastest_ms),
    }  # fmt: skip


def _predict(model: VarAD, hierarchies: Sequence[Tensor]) -> None:
    model.predict(model.prepare(hierarchies))


def exponent(times: dict[int, float]) -> float | None:
    """The slope of log time over log length: 1 where time is proportional; None with one length."""
    if len(times) < 2:
        return None
    return float(np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)[0])


def moved_bytes(channels: int, length: int, states: int, item: int = 4) -> int:
    """What forward and backward must move at least, of one batch item in one group, with every argument.

    Each pass reads its inputs and writes its results once, in the order of D x L, N x L, D x N and D numbers:

        forward    reads u, delta, z; B, C; A; D, bias          writes y
        backward   reads dy, u, delta, z; B, C; A; D, bias      writes du, ddelta, dz; dB, dC; dA; dD, dbias

    so 11 D L + 6 N L + 3 D N + 6 D. The inputs count in both passes: the rest of the network works between
    the two. States kept from one to the other do not count, as they could be computed again.
    """
    D, L, N = channels, length, states
    return item * (11 * D * L + 6 * N * L + 3 * D * N + 6 * D)


def compute_floor_ms(channels: int, length: int, states: int, exps_per_s: float, fmas_per_s: float) -> float:
    """What the arithmetic alone would take at the best rates of exp and of fused multiply-adds.

    Each channel, state and position has, in the forward pass, one exp and 4 multiplications or fused
    multiply-adds (step A; drive B; h; y), in the backward pass the same again, as states and decays are
    computed anew rather than stored, and 8 for the gradients (dh twice, dB, dC, ddrive, d log decay, dstep,
    dA). What is done per channel and position only (softplus, gate) is left out.
    """
    elements = channels * length * states
    return elements * (EXPS / exps_per_s + FMAS / fmas_per_s) * 1e3


def recurrence_floor(channels: int, length: int, states: int, rounds: int, device: str) -> dict[str, Any]:
    """Forward and backward of the recurrence beside the machine's own rates, in turns in the same run."""
    keep_large_buffers()  # as training does
    inputs = scan_inputs(1, channels, length, states, device)
    gradient = torch.ones_like(inputs["u"])
    source = torch.ones(COPIED_FLOATS, device=device)
    target = torch.empty_like(source)

    def recurrence() -> None:
        arguments: dict[str, Any] = {name: x.detach().requires_grad_() for name, x in inputs.items()}
        selective_scan(**arguments, delta_softplus=True).backward(gradient)

    cases: dict[str, Callable[[], object]] = {
        "recurrence": recurrence,
        "copy": lambda: target.copy_(source),
    }
    on_cpu = torch.device(device).type == "cpu"
    threads = torch.get_num_threads()
    if on_cpu:  # a GPU's rates would need kernels of their own
        pool = ThreadPoolExecutor(threads)  # plain threads, as the kernels have
        blocks = [np.full(CACHED_FLOATS, 0.5, np.float32) for _ in range(threads)]
        cases["exp"] = lambda: list(pool.map(_powers, blocks))
        cases["fma"] = lambda: list(pool.map(_chains, blocks))
    times_ms = take_turns(cases, rounds, device)

    moved = moved_bytes(channels, length, states)
    copied = 2 * source.nbytes
    floors_ms = [moved / copied * copy_ms for copy_ms in times_ms["copy"]]
    row: dict[str, Any] = {
        "device": device,
        "d_state": states,
        "length": length,
        "channels": channels,
        "fwd_bwd_ms": statistics.median(times_ms["recurrence"]),
        "fastest_ms": min(times_ms["recurrence"]),
        "moved_mib": moved / 2**20,
        "copy_gb_per_s": copied / statistics.median(times_ms["copy"]) / 1e6,
        "memory_floor_ms": statistics.median(floors_ms),
        "times_memory_floor": pair_ratio(times_ms["recurrence"], floors_ms),
    }
    if on_cpu:
        pool.shutdown()
        exps = threads * CACHED_FLOATS * EXP_REPEATS
        fmas = threads * CACHED_FLOATS * FMA_REPEATS * FMA_CHAIN
        rates = [
            (exps / exp_ms * 1e3, fmas / fma_ms * 1e3)
            for exp_ms, fma_ms in zip(times_ms["exp"], times_ms["fma"], strict=True)
        ]
        floors_ms = [compute_floor_ms(channels, length, states, *pair) for pair in rates]
        row |= {
            "g_exp_per_s": statistics.median(pair[0] for pair in rates) / 1e9,
            "g_fma_per_s": statistics.median(pair[1] for pair in rates) / 1e9,
            "compute_floor_ms": statistics.median(floors_ms),
            "times_compute_floor": pair_ratio(times_ms["recurrence"], floors_ms),
        }
    return row


# With the kernels' own flags; not kept on disk, as it compiles in a second.
_compiled = numba.njit(nogil=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")


@_compiled
def _powers(x: Array) -> None:
    """2**-x again and again on data in the cache: the kernels' own polynomial, the fastest exp at hand."""
    for _ in range(EXP_REPEATS):
        for i in range(len(x)):
            x[i] = exp2(-x[i])


@_compiled
def _chains(x: Array) -> None:
    """Fused multiply-adds in the registers: FMA_CHAIN of them for each number read and written."""
    a = x.dtype.type(0.5)
    for _ in range(FMA_REPEATS):
        for i in range(len(x)):
            value = x[i]
            power = value
            for _ in range(FMA_CHAIN):
                power = power * value + a
            x[i] = power
