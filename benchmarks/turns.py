"""Fair timing: what is compared takes turns, round by round, so that a change of load meets all of it."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)


def take_turns(
    cases: Mapping[Name, Callable[[], object]], rounds: int, device: str = "cpu"
) -> dict[Name, list[float]]:
    """Milliseconds of each case, round by round, after one round that is not counted.

    Args:
        cases: what to call.
        rounds: how often; every other round goes backwards, so that no case always follows the same one.
        device: where the work is; a CUDA device is waited for.
    """
    times_ms: dict[Name, list[float]] = {name: [] for name in cases}
    names = list(cases)
    for turn in range(rounds + 1):
        for name in names if turn % 2 == 0 else reversed(names):
            elapsed_ms = timed(cases[name], device)
            if turn > 0:
                times_ms[name].append(elapsed_ms)
    return times_ms


def timed(work: Callable[[], object], device: str) -> float:
    """Milliseconds of one call, from an idle device to an idle device."""
    wait(device)
    begun_ns = time.perf_counter_ns()
    work()
    wait(device)
    return (time.perf_counter_ns() - begun_ns) / 1e6


def wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def pair_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """The median over the rounds of one case's time over another's in the same round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))
