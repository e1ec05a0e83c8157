"""A stand-in detector in the real worker process: its score is written in the picture's first pixels.

Pixel (0, 0) = red: score in percent of the reject limit (100 = the limit); green: milliseconds / 4 to think;
blue: what goes wrong (see FAULTS). Run by the real `worker_link` in place of VarAD.
"""

import argparse
import json
import os
import signal
import sys
import time

import numpy as np

from station.worker import link_arguments, serve
from varad_core.types import AnomalyResult, BundleError, Limits

FAULTS = {
    "none": 0,
    "crash": 1,
    "hang": 2,
    "error": 3,
    "nan": 4,
    "kill": 5,
    "broken": 6,
    "garbage": 7,
    "liar": 8,
    "huge": 9,
}


class StandIn:
    limits = Limits(recheck=0.9, reject=1.0, false_reject_bound=0.01, confidence=0.95)
    model_id = "standin00000"
    model_name = "stand-in"

    def __init__(self, link_fd: int) -> None:
        self.link_fd = link_fd

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
        if blue == FAULTS["garbage"]:
            os.write(self.link_fd, b'{"kind": "result", "score": "good"\xff')
        if blue == FAULTS["liar"]:
            os.write(self.link_fd, answer(10**6, 8))
        if blue == FAULTS["huge"]:  # scripted to be the third part, which stands in the first slot
            os.write(self.link_fd, answer(3, 2**20))
        score = float("nan") if blue == FAULTS["nan"] else red / 100
        return AnomalyResult(score, np.full((8, 8), score, np.float32), {"predict": 0.1})


def answer(part_seq: int, side: int) -> bytes:
    result = {"kind": "result", "part_seq": part_seq, "slot": 0, "score": 0.0, "timings_ms": {}}
    return json.dumps(result | {"map_height": side, "map_width": side}).encode()


def main() -> int:
    parser = argparse.ArgumentParser()
    link_arguments(parser)
    parser.add_argument("--cannot-load", nargs="?", const="untrusted")
    arguments = parser.parse_args()

    def create() -> StandIn:
        if arguments.cannot_load == "surprise":
            raise KeyError("format")
        if arguments.cannot_load:
            raise BundleError("model.safetensors: signed by nobody we trust")
        return StandIn(arguments.link_fd)

    return serve(create, arguments)


if __name__ == "__main__":
    sys.exit(main())
