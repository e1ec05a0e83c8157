"""The worker process: sole owner of the model and the GPU. `python -m station.worker` is started by
`worker_link`.

It takes part numbers and slots over a socket, reads the image from the shared slab, writes the map back, and
answers with the score. It ends when the engine's end of the socket closes, and the kernel ends it when the
engine is killed.
One JSON object a message (SOCK_SEQPACKET keeps them apart):

    engine -> worker  {"part_seq", "slot", "height", "width"}
    worker -> engine  {"kind": "ready", "model_id", "model_name", "limits": {...}}
                      {"kind": "failed", "message"}                      the model cannot be used; the worker
                          ends {"kind": "result", "part_seq", "slot", "score", "map_height", "map_width",
                          "timings_ms"} {"kind": "error", "part_seq", "slot", "message"}
"""

import argparse
import contextlib
import ctypes
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import cv2
from numpy.typing import NDArray

from station.logs import TERMINAL_FORMAT, log_arguments, log_file, logging_to
from station.slab import Slab, SlabLayout
from varad_core.types import AnomalyResult, Limits, VaradError

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 65_536
_PR_SET_PDEATHSIG = 1


class Detector(Protocol):
    """What the worker serves: `varad_core.inspector.Inspector`, or a stand-in in tests and benchmarks."""

    @property
    def limits(self) -> Limits:
        """Score limits of the model."""
        ...

    @property
    def model_id(self) -> str:
        """Short fingerprint of the model file."""
        ...

    @property
    def model_name(self) -> str:
        """What people call it."""
        ...

    def warm_up(self) -> None:
        """Everything slow that only the first image needs."""
        ...

    def inspect(self, image_rgb: NDArray[Any]) -> AnomalyResult:
        """Score one image, uint8 (H, W, 3)."""
        ...


def link_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments by which `worker_link` hands over its end of the line."""
    parser.add_argument("--link-fd", type=int, required=True)
    parser.add_argument("--slab-fd", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--image-capacity-bytes", type=int, required=True)
    log_arguments(parser)


def serve(create_detector: Callable[[], Detector], arguments: argparse.Namespace) -> int:
    """Load, warm up, say ready, then inspect until the engine hangs up. Returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine, which stops us in its order
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    logging.basicConfig(level=logging.WARNING, format=TERMINAL_FORMAT)
    with logging_to(log_file(arguments)):
        return _serve(create_detector, arguments)


def _serve(create_detector: Callable[[], Detector], arguments: argparse.Namespace) -> int:
    slab = Slab(arguments.slab_fd, SlabLayout(arguments.slots, arguments.image_capacity_bytes))
    with socket.socket(fileno=arguments.link_fd) as link:
        try:
            detector = create_detector()
            detector.warm_up()
        except Exception as error:  # the process boundary: the engine is told, whatever it is
            expected = isinstance(error, VaradError)
            message = (
                str(error) if expected else f"the model cannot be used ({_one_line(error)}); see worker.jsonl"
            )
            log.info("%s", message, exc_info=not expected)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                _send(link, {"kind": "failed", "message": message})
            return 2
        ready = {"kind": "ready", "model_id": detector.model_id, "model_name": detector.model_name}
        log.info("ready: %s %s", detector.model_name, detector.model_id)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the engine has gone: so do we
            _send(link, ready | {"limits": asdict(detector.limits)})
            while request := link.recv(MAX_MESSAGE_BYTES):
                answer, broken = _inspect(detector, slab, json.loads(request))
                _send(link, answer)
                if broken:
                    return 3  # the engine starts a fresh one
    return 0


def _inspect(detector: Detector, slab: Slab, request: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The answer for one part, and whether the detector cannot be trusted with another.

    An image the detector refuses is that image's fault. Anything else, such as memory running out or a CUDA
    error that every later call would repeat, is the detector's.
    """
    part_seq, slot = request["part_seq"], request["slot"]
    try:
        result = detector.inspect(slab.image(slot, request["height"], request["width"]))
        height, width = result.anomaly_map.shape
        slab.anomaly_map(slot, height, width)[:] = result.anomaly_map
    except Exception as error:  # the process boundary: every part gets an answer
        message = _one_line(error)
        broken = not isinstance(error, VaradError | ValueError | cv2.error)
        log.info("part %d was not inspected: %s", part_seq, message, exc_info=broken)
        return {"kind": "error", "part_seq": part_seq, "slot": slot, "message": message}, broken
    return {
        "kind": "result",
        "part_seq": part_seq,
        "slot": slot,
        "score": float(result.score),
        "map_height": height,
        "map_width": width,
        "timings_ms": dict(result.timings_ms),
    }, False


def _one_line(error: Exception) -> str:
    """An error of no kind of ours, for a person."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:2000]


def _send(link: socket.socket, message: dict[str, Any]) -> None:
    link.send(json.dumps(message).encode())


def main() -> int:
    """Serve VarAD from a model bundle."""
    parser = argparse.ArgumentParser(prog="station.worker")
    link_arguments(parser)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--trusted-keys", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()

    def create_detector() -> Detector:
        from varad_core.inspector import Inspector  # seconds of imports: after the link is up

        return Inspector.load(
            arguments.bundle,
            trusted_keys=arguments.trusted_keys,
            device=arguments.device,
            threads=arguments.threads,
        )

    return serve(create_detector, arguments)


if __name__ == "__main__":
    sys.exit(main())
