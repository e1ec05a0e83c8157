"""A line made of scripted parts: its configuration, its camera, and the stand-in for its detector."""

import random
import socket
import sys
import time
from pathlib import Path

import numpy as np

from drivers.errors import CameraError, CameraLost
from drivers.types import CameraInfo, Grab
from station.config import StationConfig, load_config

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = [sys.executable, str(Path(__file__).with_name("standin.py"))]


def free_port() -> int:
    """The first of three free consecutive ports, below those that systems give to outgoing connections."""
    for _ in range(100):
        port = random.SystemRandom().randrange(18_000, 32_000)
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            try:
                for offset, one in enumerate((first, second, third)):
                    one.bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return port
    raise RuntimeError("no three consecutive ports are free")


def line_config(
    data_dir: Path, camera: dict[str, object] | None = None, **changes: dict[str, object]
) -> StationConfig:
    """The shipped configuration with another data folder, free ports, another camera, and
    `section={key: value}` changes."""
    config = load_config(ROOT / "config.yaml")
    values = config.model_dump()
    values["station"]["data_dir"] = data_dir
    values["publishing"]["port"] = free_port()
    values["record"]["ballast_mb"] = 1.0
    values["cameras"] = [camera] if camera else values["cameras"]
    values["metrics"]["port"] = 0
    values["trigger"]["reject_repeats"] = False  # scripted pictures have no noise
    values["outputs"] = {"reject_gate": {"driver": "simulated"}, "gate_acts_on": "reject"}
    for section, keys in changes.items():
        values[section].update(keys)
    values["outputs"].setdefault("reject_delay_ms", max(1000.0, values["inspection"]["deadline_ms"]))
    return StationConfig.model_validate(values)


class ScriptedCamera:
    """A camera whose pictures are written out: one RGB pixel colour a part, or a fault's name."""

    def __init__(
        self, script: list[tuple[int, int, int] | str], width_px: int = 16, height_px: int = 8
    ) -> None:
        self.script = script
        self.size = (height_px, width_px)
        self.index = 0
        self.waiting: list[Grab] = []
        self.is_open = False
        self.is_dead = False  # unplugged, and nobody says so

    def open(self) -> CameraInfo:
        self.is_open = True
        height_px, width_px = self.size
        return CameraInfo("CAM 1", "scripted", "S-1", width_px, height_px)

    def trigger(self) -> None:
        step = self.script[self.index % len(self.script)]
        frame_id, self.index = self.index, self.index + 1
        if step == "busy":
            raise CameraError("busy")
        if step == "lost":
            raise CameraLost("gone")
        if step == "missing" or self.is_dead:
            return
        if step == "failed":
            self.waiting.append(Grab(frame_id, None, time.perf_counter_ns(), error="incomplete"))
            return
        height, width = (4, 4) if step == "small" else self.size
        image_rgb = np.zeros((height, width, 3), np.uint8)
        image_rgb[0, 0] = (50, 0, 0) if isinstance(step, str) else step
        self.waiting.append(Grab(frame_id, image_rgb, time.perf_counter_ns()))

    def retrieve(self, timeout_s: float) -> Grab | None:
        if self.waiting:
            return self.waiting.pop(0)
        time.sleep(min(timeout_s, 0.01))
        return None

    def close(self) -> None:
        self.is_open = False
