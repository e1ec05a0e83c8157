"""A line whose gate and lamps hang on its camera: pylon's emulator, its user outputs and the whole engine."""

from pathlib import Path

import cv2
import numpy as np
from line_runs import assert_whole, wait_until
from scripted_line import STAND_IN, line_config

from drivers.config import PylonConfig
from drivers.pylon import PylonCamera
from station.engine import Engine
from station.types import EngineState


class Watched(PylonCamera):
    """Remembers what was written to its outputs, and whether it was open then."""

    def __init__(self, config: PylonConfig) -> None:
        super().__init__(config)
        self.written: list[tuple[str, bool]] = []

    def write_user_output(self, name: str, on: bool) -> None:
        super().write_user_output(name, on)
        self.written.append((name, on))


def test_gate_and_lamp_on_the_cameras_outputs_until_the_last_part_is_sorted(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, red in (("0-good", 50), ("1-bad", 150)):
        assert cv2.imwrite(str(folder / f"{name}.png"), np.full((64, 64, 3), (0, 0, red), np.uint8))
    pylon = {"driver": "pylon", "emulated": True, "pixel_format": "RGB8Packed", "image_folder": folder}
    outputs = {
        "reject_gate": {"driver": "camera", "user_output": "UserOutput1"},
        "stack_light": {"green": {"driver": "camera", "user_output": "UserOutput2"}},
        "gate_acts_on": "pass",
        "stroke_ms": 5.0,
    }
    config = line_config(tmp_path, pylon, trigger={"interval_ms": 60.0}, outputs=outputs)
    camera = Watched(config.cameras[0])  # type: ignore[arg-type]
    engine = Engine(config, parts=8, cameras=[camera], command=STAND_IN)
    engine.start()
    wait_until(lambda: ("UserOutput2", True) in camera.written)
    assert engine.state()[0] is EngineState.RUNNING
    assert engine.done.wait(30)
    account = engine.stop("done")
    assert_whole(account, engine, 8)
    assert account.passed == 4
    gate = [on for name, on in camera.written if name == "UserOutput1"]
    assert sum(gate) == account.passed, "the camera stays open until the last part is at the gate"
    assert engine.sorting.actuation.rejected == 4
    assert gate[-1] is False
    assert [on for name, on in camera.written if name == "UserOutput2"][-1] is False
