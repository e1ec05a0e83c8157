import time

import numpy as np
import pytest

from drivers.buttons import render_part
from drivers.config import SimulatedConfig
from drivers.errors import CameraError, CameraLost, CameraNotFound
from drivers.simulated import SimulatedCamera, SimulatedFaults
from drivers.types import Grab

SMALL = SimulatedConfig(width_px=80, height_px=64, transfer_ms=0, seed=3)


def parts(camera: SimulatedCamera, count: int, timeout_s: float = 5.0) -> list[Grab | None]:
    grabs = []
    for _ in range(count):
        camera.trigger()
        grabs.append(camera.retrieve(timeout_s))
    return grabs


def test_part_k_is_the_renderers_part_k_across_reopening() -> None:
    camera = SimulatedCamera(SMALL)
    camera.open()
    grabs = parts(camera, 2)
    camera.open()
    grabs += parts(camera, 1)
    camera.close()
    for index, grab in enumerate(grabs):
        assert grab is not None
        assert grab.device["part_index"] == index
        assert grab.image_rgb is not None
        truth = render_part(seed=3, index=index, defect_rate=0.25, width_px=80, height_px=64)
        np.testing.assert_array_equal(grab.image_rgb, truth.image_rgb)
    assert [grab.frame_id for grab in grabs if grab] == [0, 1, 0]


def test_a_busy_camera_refuses_the_trigger_and_the_part_goes_by_unseen() -> None:
    camera = SimulatedCamera(SimulatedConfig(width_px=64, height_px=64, transfer_ms=2000))
    camera.open()
    camera.trigger()
    with pytest.raises(CameraError, match=r"busy for another .* part 1 is missed"):
        camera.trigger()
    grab = camera.retrieve(20.0)
    assert grab is not None
    assert (grab.frame_id, grab.device["part_index"]) == (0, 0)
    camera.trigger()
    after = camera.retrieve(20.0)
    camera.close()
    assert after is not None
    assert (after.frame_id, after.device["part_index"]) == (1, 2)


def test_the_picture_takes_at_least_its_transfer_time() -> None:
    camera = SimulatedCamera(SimulatedConfig(width_px=64, height_px=64, transfer_ms=60))
    camera.open()
    start_ns = time.perf_counter_ns()
    camera.trigger()
    assert camera.retrieve(0.01) is None
    grab = camera.retrieve(5.0)
    camera.close()
    assert grab is not None
    assert grab.captured_ns - start_ns >= 59_000_000


def test_failed_every_nth_buffer() -> None:
    camera = SimulatedCamera(SimulatedConfig(width_px=64, height_px=64, transfer_ms=0, failed_every=3))
    camera.open()
    grabs = parts(camera, 6)
    camera.close()
    assert [bool(grab and grab.error) for grab in grabs] == [False, False, True, False, False, True]
    assert [grab.frame_id for grab in grabs if grab] == list(range(6))


def test_lost_frames_leave_a_gap_and_wrong_sizes_come_through() -> None:
    camera = SimulatedCamera(SMALL, SimulatedFaults(lose={1}, wrong_size={2}))
    camera.open()
    first, lost, small = parts(camera, 3, timeout_s=1.0)
    camera.close()
    assert first is not None
    assert lost is None
    assert small is not None
    assert (first.frame_id, small.frame_id) == (0, 2)
    assert small.image_rgb is not None
    assert small.image_rgb.shape == (32, 80, 3)


def test_an_unplugged_camera_is_lost_until_it_is_reopened_and_back() -> None:
    camera = SimulatedCamera(SMALL, SimulatedFaults(disappear={1}, absent_opens=2))
    camera.open()
    assert parts(camera, 1)[0] is not None
    camera.trigger()  # nobody has noticed yet
    with pytest.raises(CameraLost, match="CAM 1"):
        camera.retrieve(1.0)
    with pytest.raises(CameraLost):
        camera.trigger()
    for _ in range(2):
        with pytest.raises(CameraNotFound):
            camera.open()
    camera.open()
    back = parts(camera, 1)[0]
    camera.close()
    assert back is not None
    assert back.image_rgb is not None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"width_px": 63}, "width_px must be 64 to 4096"),
        ({"height_px": 5000}, "height_px must be 64 to 4096"),
        ({"defect_rate": 1.5}, "defect_rate must be 0 to 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"transfer_ms": -1}, "transfer_ms must not be negative"),
        ({"failed_every": -1}, "failed_every must not be negative"),
        ({"material": "brass"}, "material must be wood or plastic"),
    ],
)
def test_settings_out_of_bounds_are_refused_with_the_value(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=rf"{message}.*got '?{next(iter(setting.values()))}"):
        SimulatedConfig(**setting)  # type: ignore[arg-type]
