"""A stand-in detector in the real worker process: its score is written in the picture's first pixels.

Pixel (0, 0) = red: score in percent of the reject limit (100 = the limit); green: milliseconds / 4 to think;
blue: what goes wrong (see FAULTS). Run by the real `worker_link` in place of VarAD.
"""

import argparse
import os
import signal
import sys
import time

import numpy as np

from station.worker import link_arguments, serve
from varad_core.types import AnomalyResult, BundleError, Limits

FAULTS = {"none": 0, "crash": 1, "hang": 2, "error": 3, "nan": 4, "kill": 5, "broken": 6}


class StandIn:
    limits = Limits(recheck=0.9, reject=1.0, false_reject_bound=0.01, confidence=0.95)
    model_id = "standin00000"
    model_name = "stand-in"

    def warm_up(self) -> None:
        pass

    def inspect(self, image_rgb: np.ndarray) -> AnomalyResult:
        red, green, blue = (int(value) for value in image_rgb[0, 0])
        time.sleep(green * 4 / 1000)
        if blue == FAULTS["crash"]:
            os._exit(3)
        if blue == FAULTS["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if blue == FAULTS["hang"]:
            time.sleep(3600)
        if blue == FAULTS["error"]:
            raise ValueError("the detector refused\nthis image")
        if blue == FAULTS["broken"]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        score = float("nan") if blue == FAULTS["nan"] else red / 100
        return AnomalyResult(score, np.full((8, 8), score, np.float32), {"predict": 0.1})


def main() -> int:
    parser = argparse.ArgumentParser()
    link_arguments(parser)
    parser.add_argument("--cannot-load", action="store_true")
    arguments = parser.parse_args()

    def create() -> StandIn:
        if arguments.cannot_load:
            raise BundleError("model.safetensors: signed by nobody we trust")
        return StandIn()

    return serve(create, arguments)


if __name__ == "__main__":
    sys.exit(main())
