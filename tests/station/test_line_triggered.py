"""A line that a light barrier triggers: the camera's buffers are the parts."""

import time
from pathlib import Path

import numpy as np
from line_runs import PASS, assert_whole, wait_until
from scripted_line import STAND_IN, ScriptedCamera, line_config

from drivers.outputs import SimulatedOutput
from drivers.types import Grab
from station.config import StationConfig
from station.engine import Engine


class LineTriggered(ScriptedCamera):
    """A light barrier triggers it: buffers come by themselves, whether or not anybody takes them."""

    def __init__(self, frame_ids: list[int], period_s: float) -> None:
        super().__init__([PASS])
        self.frame_ids = frame_ids
        self.period_s = period_s

    def retrieve(self, timeout_s: float) -> Grab | None:
        if not self.frame_ids:
            return super().retrieve(timeout_s)
        time.sleep(self.period_s)
        image_rgb = np.zeros((*self.size, 3), np.uint8)
        image_rgb[0, 0] = PASS
        return Grab(self.frame_ids.pop(0), image_rgb, time.perf_counter_ns())


def line_triggered(config: StationConfig) -> StationConfig:
    """The same, with the camera's input line as its trigger."""
    return config.model_copy(update={"trigger": config.trigger.model_copy(update={"source": "camera"})})


def test_a_lost_buffer_of_a_line_trigger_is_a_part_that_was_not_inspected(
    tmp_path: Path, no_leaks: None
) -> None:
    camera = LineTriggered([], 0.02)
    gate = SimulatedOutput()
    engine = Engine(
        line_triggered(line_config(tmp_path)), parts=6, cameras=[camera], gate=gate, command=STAND_IN
    )
    engine.start()
    camera.frame_ids = [0, 1, 4, 5]  # two were lost
    assert engine.done.wait(30)
    rows = assert_whole(engine.stop(""), engine, 6)
    assert [row["verdict"] for row in rows] == [
        "PASS",
        "PASS",
        "NOT_INSPECTED",
        "NOT_INSPECTED",
        "PASS",
        "PASS",
    ]
    assert {row["reason"] for row in rows} == {"below limit", "frame missing"}
    assert gate.count == 2
    assert engine.acquisition.counts["lost"] == 2
    assert any("2 lost" in device.text for device in engine.status().devices if device.name == "camera")


def test_parts_that_go_by_while_paused_are_counted_and_none_is_taken_for_a_later_one(tmp_path: Path) -> None:
    camera = LineTriggered([], 0.01)
    engine = Engine(line_triggered(line_config(tmp_path)), cameras=[camera], command=STAND_IN)
    engine.start(run=False)
    camera.frame_ids = list(range(5))  # before the line is ready: nobody's parts
    wait_until(lambda: not camera.frame_ids)
    assert engine.ledger.snapshot().triggered == 0
    assert engine.command("start", {}) == {"ok": True}
    camera.frame_ids = list(range(5, 10))
    wait_until(lambda: engine.ledger.snapshot().rows == 5)
    assert engine.command("pause", {"reason": "jam"}) == {"ok": True}
    camera.frame_ids = list(range(10, 14))
    wait_until(lambda: engine.ledger.snapshot().rows == 9)
    rows = assert_whole(engine.stop("done"), engine, 9)
    assert [row["verdict"] for row in rows] == ["PASS"] * 5 + ["NOT_INSPECTED"] * 4
    assert {row["reason"] for row in rows[5:]} == {"line paused"}
