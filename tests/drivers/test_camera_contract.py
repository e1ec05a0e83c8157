"""What every camera does, run against all three drivers; pylon's is its own emulator."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from drivers.camera import Camera, create_camera
from drivers.config import PylonConfig, ReplayConfig, SimulatedConfig
from drivers.errors import CameraError, CameraNotFound
from drivers.simulated import SimulatedCamera, SimulatedFaults
from drivers.types import Grab

FAILED = 2  # the part whose buffer fails in `failing`


@dataclass(frozen=True)
class Rig:
    camera: Callable[[], Camera]
    failing: Callable[[], Camera]
    before_failure: Callable[[Camera], None]
    unopenable: Callable[[], Camera]


def simulated_rig(_: Path) -> Rig:
    config = SimulatedConfig(width_px=96, height_px=64, transfer_ms=1)

    def unplugged() -> Camera:
        camera = SimulatedCamera(config, SimulatedFaults(disappear={0}, absent_opens=1))
        camera.open()
        camera.trigger()
        camera.close()
        return camera

    return Rig(
        camera=lambda: create_camera(config),
        failing=lambda: SimulatedCamera(config, SimulatedFaults(fail={FAILED})),
        before_failure=lambda _: None,
        unopenable=unplugged,
    )


def replay_rig(folder: Path) -> Rig:
    def damaged() -> Camera:
        file = sorted(folder.iterdir())[FAILED]
        file.write_bytes(file.read_bytes()[:50])
        return create_camera(ReplayConfig(folder=folder))

    return Rig(
        camera=lambda: create_camera(ReplayConfig(folder=folder)),
        failing=damaged,
        before_failure=lambda _: None,
        unopenable=lambda: create_camera(ReplayConfig(folder=folder / "absent")),
    )


def pylon_rig(_: Path) -> Rig:
    config = PylonConfig(emulated=True, width_px=96, height_px=64, exposure_us=500)

    def fail_next(camera: Camera) -> None:
        device = camera._camera  # type: ignore[attr-defined]
        device.ForceFailedBufferCount.Value = 1
        device.ForceFailedBuffer.Execute()

    return Rig(
        camera=lambda: create_camera(config),
        failing=lambda: create_camera(config),
        before_failure=fail_next,
        unopenable=lambda: create_camera(PylonConfig(emulated=True, serial="0000-none")),
    )


@pytest.fixture(params=[simulated_rig, replay_rig, pylon_rig], ids=["simulated", "replay", "pylon"])
def rig(request: pytest.FixtureRequest, coloured_folder: Path) -> Rig:
    made: Rig = request.param(coloured_folder)
    return made


def triggered(camera: Camera) -> Grab:
    """One part; a busy camera is waited for, as a slow line does."""
    while True:
        try:
            camera.trigger()
        except CameraError:
            time.sleep(0.002)
        else:
            break
    grab = camera.retrieve(5.0)
    assert grab is not None
    return grab


def test_each_trigger_brings_one_picture_taken_after_it_and_ids_count_up(rig: Rig) -> None:
    camera = rig.camera()
    info = camera.open()
    try:
        last_id = -1
        for _ in range(3):
            asked_ns = time.perf_counter_ns()
            grab = triggered(camera)
            assert asked_ns < grab.captured_ns <= time.perf_counter_ns()
            assert grab.frame_id == last_id + 1
            assert grab.error == ""
            assert grab.image_rgb is not None
            assert grab.image_rgb.dtype == np.uint8
            assert grab.image_rgb.shape == (info.height_px, info.width_px, 3)
            last_id = grab.frame_id
    finally:
        camera.close()


def test_pictures_are_read_only_and_outlive_the_camera(rig: Rig) -> None:
    camera = rig.camera()
    camera.open()
    first, second = triggered(camera), triggered(camera)
    assert first.image_rgb is not None
    assert second.image_rgb is not None
    before = first.image_rgb.copy()
    with pytest.raises(ValueError, match="read-only"):
        first.image_rgb[0, 0] = 0
    triggered(camera)
    camera.close()
    np.testing.assert_array_equal(first.image_rgb, before)


def test_without_a_trigger_retrieve_returns_none_after_its_timeout(rig: Rig) -> None:
    camera = rig.camera()
    camera.open()
    try:
        start_ns = time.perf_counter_ns()
        assert camera.retrieve(0.03) is None
        assert time.perf_counter_ns() - start_ns >= 29_000_000
        triggered(camera)
        assert camera.retrieve(0.0) is None
    finally:
        camera.close()


def test_an_unanswered_trigger_never_answers_the_next_one(rig: Rig) -> None:
    camera = rig.camera()
    camera.open()
    try:
        first = triggered(camera)
        camera_may_be_busy = time.monotonic() + 5
        while time.monotonic() < camera_may_be_busy:
            try:
                camera.trigger()
            except CameraError:
                continue
            break
        time.sleep(0.05)
        asked_ns = time.perf_counter_ns()
        answer = triggered(camera)
        assert answer.frame_id > first.frame_id
        assert answer.captured_ns > asked_ns
        assert camera.retrieve(0.05) is None
    finally:
        camera.close()


def test_a_failed_buffer_is_a_grab_with_an_error_and_the_next_one_is_good(rig: Rig) -> None:
    camera = rig.failing()
    camera.open()
    try:
        grabs = []
        for part in range(4):
            if part == FAILED:
                rig.before_failure(camera)
            grabs.append(triggered(camera))
        failed = grabs.pop(FAILED)
        assert failed.image_rgb is None
        assert failed.error
        assert "\n" not in failed.error
        assert failed.frame_id == FAILED
        assert all(grab.image_rgb is not None and not grab.error for grab in grabs)
        assert [grab.frame_id for grab in grabs] == [0, 1, 3]
    finally:
        camera.close()


def test_close_in_any_state_and_any_number_of_times(rig: Rig) -> None:
    camera = rig.camera()
    camera.close()
    camera.open()
    camera.close()
    camera.close()
    with pytest.raises(CameraError, match="open"):
        camera.trigger()
    with pytest.raises(CameraError, match="open"):
        camera.retrieve(0.0)


def test_reopening_starts_over_with_or_without_close(rig: Rig) -> None:
    camera = rig.camera()
    info = camera.open()
    triggered(camera)
    camera.trigger()
    try:
        assert camera.open() == info
        assert triggered(camera).frame_id == 0
        camera.close()
        assert camera.open() == info
        assert triggered(camera).frame_id == 0
    finally:
        camera.close()


def test_a_failed_open_leaves_nothing_behind_and_says_what_to_do(rig: Rig) -> None:
    camera = rig.unopenable()
    with pytest.raises(CameraNotFound, match=r"CAM 1.*[;,] \w+"):
        camera.open()
    with pytest.raises(CameraError, match="open"):
        camera.trigger()
    camera.close()
