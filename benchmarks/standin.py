"""A stand-in detector in the real worker process, for what is measured around the detector.

Its score follows from the picture alone, as a model's does: the same picture has the same score. It thinks
for `--think-ms`, asleep as beside a GPU, and says in `timings_ms["think"]` how long that really took.
SIGUSR1 makes its next inspection an error, SIGUSR2 makes its next score not a number.
"""

import argparse
import signal
import sys
import time
import zlib
from types import FrameType

import numpy as np

from drivers.types import ImageRgb
from station.worker import link_arguments, serve
from varad_core.types import AnomalyResult, Limits

HIGHEST_SCORE = 1.05  # with the limits below: 86 of 100 pictures pass, 9 are looked at again, 5 are rejected


def score_of(image_rgb: ImageRgb) -> float:
    """From 0 to `HIGHEST_SCORE`, drawn by some of the picture's pixels."""
    drawn = zlib.crc32(np.ascontiguousarray(image_rgb[::16, ::16]).tobytes()) % 1000
    return HIGHEST_SCORE * drawn / 1000


class StandIn:
    limits = Limits(recheck=0.9, reject=1.0, false_reject_bound=0.01, confidence=0.95)
    model_id = "standin00000"
    model_name = "stand-in"

    def __init__(self, think_ms: float) -> None:
        self._think_s = think_ms / 1e3
        self._next = 0  # the signal that has come, for the next picture
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._told)

    def _told(self, number: int, frame: FrameType | None) -> None:
        self._next = number

    def warm_up(self) -> None:
        pass

    def inspect(self, image_rgb: ImageRgb) -> AnomalyResult:
        begun_ns = time.perf_counter_ns()
        score = score_of(image_rgb)
        time.sleep(max(0.0, self._think_s - (time.perf_counter_ns() - begun_ns) / 1e9))
        told, self._next = self._next, 0
        if told == signal.SIGUSR1:
            raise ValueError("the detector refused this image")
        if told == signal.SIGUSR2:
            score = float("nan")
        anomaly_map = np.full((32, 32), score, np.float32)
        return AnomalyResult(score, anomaly_map, {"think": (time.perf_counter_ns() - begun_ns) / 1e6})


def main() -> int:
    parser = argparse.ArgumentParser()
    link_arguments(parser)
    parser.add_argument("--think-ms", type=float, default=5.0)
    arguments = parser.parse_args()
    return serve(lambda: StandIn(arguments.think_ms), arguments)


if __name__ == "__main__":
    sys.exit(main())
