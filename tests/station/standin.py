"""A stand-in detector in the real worker process: its score is written in the picture's first pixels.

Pixel (0, 0) = red: score in percent of the reject limit (100 = the limit); green: milliseconds / 4 to think;
blue: what goes wrong (see FAULTS). Run by the real `worker_link` in place of VarAD. A bundle, where one is
named, is JSON: `model_id`, `limit` (of recheck and reject), `load_s`, and `fault`, which every picture gets.
"""

import argparse
import json
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np

from station.worker import link_arguments, serve
from station.worker_wire import MAX_MESSAGE_BYTES, Model, Ready, Result, encode
from varad_core.types import AnomalyResult, BundleError, Limits

FAULTS = {
    "none": 0, "crash": 1, "hang": 2, "error": 3, "nan": 4, "kill": 5, "broken": 6, "infinite": 7,
    "nan map": 8, "no map": 9, "huge map": 10, "out of memory": 11, "out of GPU memory": 12, "garbage": 13,
    "oversized": 14, "another part": 15, "map out of bounds": 16, "ready again": 17, "flood": 18,
}  # fmt: skip


class StandIn:
    model_name = "stand-in"

    def __init__(self, link_fd: int, bundle: dict[str, object]) -> None:
        self.model_id = str(bundle.get("model_id", "standin00000"))
        limit = float(str(bundle.get("limit", 1.0)))
        self.limits = Limits(0.9 * limit, limit, false_reject_bound=0.01, confidence=0.95)
        self.fault = str(bundle.get("fault", "none"))
        self.link_fd = link_fd

    def warm_up(self) -> None:
        pass

    def inspect(self, image_rgb: np.ndarray) -> AnomalyResult:
        assert image_rgb.base is None or not image_rgb.flags.writeable, "a shared picture will be recorded"
        red, green, blue = (int(value) for value in image_rgb[0, 0])
        time.sleep(green * 4 / 1000)
        fault = next(name for name, code in FAULTS.items() if code == blue) if blue else self.fault
        self.go_wrong(fault)
        score = {"nan": float("nan"), "infinite": float("-inf")}.get(fault, red / 100)
        shape = {"no map": (2, 8, 8), "huge map": (2000, 2000)}.get(fault, (8, 8))
        anomaly_map = np.full(shape, score, np.float32)
        if fault == "nan map":
            anomaly_map[3, 3] = np.nan
        return AnomalyResult(score, anomaly_map, {"predict": 0.1})

    def go_wrong(self, fault: str) -> None:
        match fault:
            case "crash":
                os._exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(3600)
            case "error":
                raise ValueError("the detector refused\nthis image")
            case "broken":
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            case "out of memory":
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                limit = pages * resource.getpagesize() + 64 * 1024**2
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
                np.ones(1024**3, np.uint8)
            case "out of GPU memory":
                from torch import OutOfMemoryError

                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            case _:
                self.say_wrong(fault)

    def say_wrong(self, fault: str) -> None:
        """Send what no worker of ours sends, before the part's answer."""
        ready = Ready(Model(self.model_id, self.model_name, self.limits))
        match fault:
            case "garbage":
                self.say(b'\xff{"kind": ')
            case "oversized":
                self.say(encode(ready).ljust(MAX_MESSAGE_BYTES + 1))
            case "another part":
                self.say(encode(Result(999_999, 0, 0.5, 8, 8)))
            case "map out of bounds":
                self.say(encode(Result(*self.asked(), 0.5, 2**32, 2**32)))
            case "ready again":
                self.say(encode(ready))
            case "flood":
                while True:
                    self.say(encode(Result(*self.asked(), float("nan"), 8, 8)))

    @staticmethod
    def asked() -> tuple[int, int]:
        """Part and slot that `station.worker` has been asked for."""
        frame = sys._getframe()
        while "request" not in frame.f_locals:
            assert frame.f_back is not None
            frame = frame.f_back
        return frame.f_locals["request"].part_seq, frame.f_locals["request"].slot

    def say(self, message: bytes) -> None:
        """What no worker of ours says."""
        with socket.socket(fileno=os.dup(self.link_fd)) as link:
            link.send(message)


def main() -> int:
    parser = argparse.ArgumentParser()
    link_arguments(parser)
    parser.add_argument("--cannot-load", action="store_true")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--trusted-keys", type=Path)
    arguments = parser.parse_args()

    def create() -> StandIn:
        if arguments.cannot_load:
            raise BundleError("model.safetensors: signed by nobody we trust")
        bundle = {}
        if arguments.bundle:
            if not arguments.bundle.is_file():
                raise BundleError(f"bundle {arguments.bundle}: no such file")
            bundle = json.loads(arguments.bundle.read_text())
        time.sleep(bundle.get("load_s", 0.0))
        return StandIn(arguments.link_fd, bundle)

    return serve(create, arguments)


if __name__ == "__main__":
    sys.exit(main())
