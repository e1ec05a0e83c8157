"""The worker process: sole owner of the model and the GPU. `python -m station.worker` is started by
`worker_link`.

It takes part numbers and slots over a socket, reads the image from the shared slab, writes the map back, and
answers with the score; the messages stand in `worker_wire`. It ends when the engine's end of the socket
closes, and the kernel ends it when the engine is killed.
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
from pathlib import Path
from typing import Any, Protocol

import cv2
from numpy.typing import NDArray

from station.logs import TERMINAL_FORMAT, log_arguments, log_file, logging_to
from station.model_check import require_finite_score, require_finite_weights
from station.slab import Slab
from station.worker_wire import (
    MAX_MESSAGE_BYTES,
    Answer,
    Failed,
    Model,
    PartError,
    Ready,
    Request,
    Result,
    encode,
)
from varad_core.types import AnomalyResult, Limits, VaradError

log = logging.getLogger(__name__)

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
    log_arguments(parser)


def end_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone, however it ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(create_detector: Callable[[], Detector], arguments: argparse.Namespace) -> int:
    """Load, warm up, say ready, then inspect until the engine hangs up. Returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine, which stops us in its order
    end_with_parent()
    logging.basicConfig(level=logging.WARNING, format=TERMINAL_FORMAT)
    with logging_to(log_file(arguments)):
        return _serve(create_detector, arguments)


def _serve(create_detector: Callable[[], Detector], arguments: argparse.Namespace) -> int:
    slab = Slab(arguments.slab_fd)
    with socket.socket(fileno=arguments.link_fd) as link:
        try:
            detector = create_detector()
            detector.warm_up()
            require_finite_score(detector)
            model = Model(detector.model_id, detector.model_name, detector.limits)
        except Exception as error:  # the process boundary: the engine tells people why
            message = str(error) if isinstance(error, VaradError) else _one_line(error)
            log.info("the model cannot be used: %s", message, exc_info=not isinstance(error, VaradError))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                link.send(encode(Failed(message)))
            return 2
        log.info("ready: %s", model)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the engine has gone: so do we
            link.send(encode(Ready(model)))
            while data := link.recv(MAX_MESSAGE_BYTES):
                answer, broken = _inspect(detector, slab, Request(**json.loads(data)))
                link.send(encode(answer))
                if broken and isinstance(answer, PartError):  # the engine starts a fresh one
                    link.send(encode(Failed(answer.message)))
                    return 3
    return 0


def _inspect(detector: Detector, slab: Slab, request: Request) -> tuple[Answer, bool]:
    """The answer for one part, and whether the detector cannot be trusted with another.

    An image the detector refuses is that image's fault. Anything else, such as memory running out or a CUDA
    error that every later call would repeat, is the detector's.
    """
    part_seq, slot = request.part_seq, request.slot
    try:
        image_rgb = slab.image(request.room, request.height, request.width)
        image_rgb.setflags(write=False)  # it is what will be recorded
        result = detector.inspect(image_rgb)
        height, width = result.anomaly_map.shape
        slab.anomaly_map(slot, height, width)[:] = result.anomaly_map
        timings_ms = dict(result.timings_ms)
        score, conditions = float(result.score), dict(result.conditions)
        return Result(part_seq, slot, score, height, width, timings_ms, conditions), False
    except Exception as error:  # the process boundary: every part gets an answer
        message = _one_line(error)
        broken = not isinstance(error, VaradError | ValueError | cv2.error) or _no_memory(error)
        log.info("part %d was not inspected: %s", part_seq, message, exc_info=broken)
        return PartError(part_seq, slot, message), broken


def _no_memory(error: Exception) -> bool:
    return isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")[:2000]


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

        inspector = Inspector.load(
            arguments.bundle,
            trusted_keys=arguments.trusted_keys,
            device=arguments.device,
            threads=arguments.threads,
        )
        require_finite_weights(inspector)
        return inspector

    return serve(create_detector, arguments)


if __name__ == "__main__":
    sys.exit(main())
