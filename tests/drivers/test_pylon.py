"""Against pylon's camera emulator, the API of a real camera."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pictures import write_png

from drivers.config import PylonConfig
from drivers.errors import CameraError, CameraLost, CameraNotFound, CameraSettingsError
from drivers.pylon.api import pylon
from drivers.pylon.camera import PylonCamera
from drivers.types import Grab, ImageRgb

Opener = Callable[..., PylonCamera]


@pytest.fixture
def opened() -> Iterator[Opener]:
    cameras: list[PylonCamera] = []

    def open_camera(**settings: Any) -> PylonCamera:
        camera = PylonCamera(PylonConfig(emulated=True, exposure_us=500, **settings))
        cameras.append(camera)
        camera.open()
        return camera

    yield open_camera
    for camera in cameras:
        camera.close()


def one(camera: PylonCamera) -> Grab:
    for _ in range(20):  # on a busy machine the emulator may take longer than the 100 ms that a trigger waits
        with suppress(CameraError):
            camera.trigger()
            break
    grab = camera.retrieve(5.0)
    assert grab is not None
    return grab


def picture(camera: PylonCamera) -> ImageRgb:
    image_rgb = one(camera).image_rgb
    assert image_rgb is not None
    return image_rgb


def node(camera: PylonCamera, name: str) -> Any:
    return getattr(camera._camera, name)


@pytest.mark.parametrize(
    "pixel_format", ["RGB8Packed", "BGR8Packed", "BayerRG8", "BayerGR8", "BayerGB8", "BayerBG8"]
)
def test_colours_arrive_as_rgb_from_every_format(opened: Opener, tmp_path: Path, pixel_format: str) -> None:
    write_png(tmp_path / "c.png", (200, 120, 40), width_px=64, height_px=48)
    image_rgb = picture(opened(pixel_format=pixel_format, image_folder=tmp_path / "c.png"))
    assert image_rgb.shape == (48, 64, 3)
    np.testing.assert_allclose(image_rgb[8:-8, 8:-8].reshape(-1, 3).mean(0), (200, 120, 40), atol=3)


def test_mono_becomes_three_equal_channels(opened: Opener, tmp_path: Path) -> None:
    write_png(tmp_path / "c.png", (90, 90, 90))
    image_rgb = picture(opened(pixel_format="Mono8", image_folder=tmp_path / "c.png"))
    np.testing.assert_allclose(image_rgb, 90, atol=1)


def test_a_folder_is_shown_in_order(opened: Opener, coloured_folder: Path) -> None:
    camera = opened(pixel_format="RGB8Packed", image_folder=coloured_folder)
    reds = [int(np.median(picture(camera)[..., 0])) for _ in range(5)]
    np.testing.assert_allclose(reds, [0, 50, 100, 150, 0], atol=2)


def test_real_photographs(opened: Opener, pills: Path) -> None:
    camera = opened(pixel_format="RGB8Packed", image_folder=pills)
    for path in sorted(pills.iterdir())[:3]:
        expected = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        image_rgb = picture(camera)
        assert image_rgb.shape == expected.shape
        assert np.abs(image_rgb.astype(int) - expected).mean() < 3  # another JPEG decoder


def test_region_exposure_and_gain_are_set_and_told_with_each_frame(opened: Opener) -> None:
    camera = opened(width_px=320, height_px=200, gain_db=3.0)
    grab = one(camera)
    assert grab.image_rgb is not None
    assert grab.image_rgb.shape == (200, 320, 3)
    assert grab.device["exposure_us"] == pytest.approx(500)
    assert grab.device["gain_db"] == pytest.approx(3.0, abs=0.1)
    middle = node(camera, "OffsetX").Value + 320 / 2
    assert middle == pytest.approx(node(camera, "WidthMax").Value / 2, abs=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pixel_format": "Mono12"}, "pixel format Mono12 is not read here; set `pixel_format`"),
        ({"pixel_format": "Infrared"}, "PixelFormat = Infrared refused"),
        ({"width_px": 100_000}, "Width = 100000 refused"),
        ({"gain_db": 1000.0}, "Gain = 1000.0 refused"),
        ({"trigger_source": "Line99"}, "TriggerSource = Line99 refused"),
        ({"image_folder": Path("absent")}, "no file or folder absent; correct `image_folder`"),
        ({"settings_file": Path("absent.pfs")}, "no settings file absent.pfs; correct `settings_file`"),
    ],
)
def test_a_refused_setting_is_named_and_the_camera_let_go(
    opened: Opener, settings: dict[str, Any], message: str
) -> None:
    refused = PylonCamera(PylonConfig(emulated=True, **settings))
    with pytest.raises(CameraSettingsError, match=f"CAM 1: {message}"):
        refused.open()
    with pytest.raises(CameraError, match="not open"):
        refused.trigger()
    assert one(opened()).image_rgb is not None


def test_a_serial_that_is_not_there(opened: Opener) -> None:
    with pytest.raises(CameraNotFound, match=r"12345678.*found: .*0815-0000"):
        opened(serial="12345678")


def saved(camera: PylonCamera, path: Path) -> str:
    node(camera, "StopGrabbing")()
    pylon.FeaturePersistence.Save(str(path), camera._camera.GetNodeMap())
    return path.read_text(encoding="utf-8")


def test_a_settings_file_is_loaded_and_read_back(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "line.pfs"
    camera = opened(pixel_format="RGB8Packed", width_px=160, height_px=120)
    saved(camera, path)
    camera.close()
    again = PylonCamera(PylonConfig(emulated=True, settings_file=path))
    info = again.open()
    shape = picture(again).shape
    again.close()
    assert (info.width_px, info.height_px) == (160, 120)
    assert shape == (120, 160, 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\nWidth\t160\n", "\nWidth\t99999\n", "refused"),
        ("\nPixelFormat\tRGB8Packed\n", "\nPixelFormat\tOctarine\n", "refused"),
        ("# {05D8C294", "# {00000000", "refused"),
    ],
)
def test_a_bad_settings_file_is_refused_and_nothing_of_it_stays(
    opened: Opener, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "line.pfs"
    camera = opened(pixel_format="RGB8Packed", width_px=160, height_px=120)
    text = saved(camera, path)
    camera.close()
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(CameraSettingsError, match=rf"line\.pfs.*{message}"):
        opened(settings_file=path)
    assert node(opened(), "Width").Value == 1024


def test_a_file_saved_while_grabbing_has_lost_its_pixel_format(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "line.pfs"
    camera = opened(pixel_format="RGB8Packed")
    pylon.FeaturePersistence.Save(str(path), camera._camera.GetNodeMap())
    camera.close()
    with pytest.raises(CameraSettingsError, match=r"line\.pfs has lost PixelFormat; set `pixel_format`"):
        opened(settings_file=path)


def test_a_setting_that_reads_back_differently_is_refused(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "line.pfs"
    camera = opened(width_px=160)
    saved(camera, path)
    camera.close()
    # Seen on cameras and not to be provoked in the emulator: the file loads, one value does not stick.
    load = pylon.FeaturePersistence.Load

    def load_and_forget(filename: str, node_map: Any, validate: bool) -> None:
        load(filename, node_map, validate)
        node_map.GetNode("Width").SetValue(256)

    monkeypatch.setattr(pylon.FeaturePersistence, "Load", load_and_forget)
    with pytest.raises(CameraSettingsError, match=r"Width is 160 in .*line\.pfs and reads back 256"):
        opened(settings_file=path)


def test_a_removed_camera_is_lost_and_comes_back_by_reopening(opened: Opener) -> None:
    camera = opened(width_px=64, height_px=64)
    one(camera)
    node(camera, "FirePnPCallback").Execute()
    deadline_s = time.monotonic() + 10
    with pytest.raises(CameraLost, match="check cable and power"):
        while time.monotonic() < deadline_s:
            camera.retrieve(0.1)
    with pytest.raises(CameraLost):
        camera.trigger()
    camera.close()
    camera.open()
    assert one(camera).image_rgb is not None


def test_parts_triggered_by_an_input_line_arrive_in_order(opened: Opener) -> None:
    camera = opened(width_px=64, height_px=64, trigger_source="Line1")
    with pytest.raises(CameraError, match="triggered by Line1"):
        camera.trigger()
    ids = []
    for _ in range(3):
        assert node(camera, "WaitForFrameTriggerReady")(1000, pylon.TimeoutHandling_Return)
        node(camera, "TriggerSoftware").Execute()  # the emulator's stand-in for a pulse on its line
        grab = camera.retrieve(5.0)
        assert grab is not None
        ids.append(grab.frame_id)
    assert ids == [0, 1, 2]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )


def test_several_cameras_need_a_serial_and_the_process_ends_by_itself() -> None:
    code = """
from drivers.camera import create_camera
from drivers.config import PylonConfig
from drivers.errors import CameraNotFound
try:
    create_camera(PylonConfig(emulated=True)).open()
except CameraNotFound as error:
    print(error)
second = create_camera(PylonConfig(emulated=True, serial="0815-0001"))
print(second.open().serial)
second.trigger()
print(second.retrieve(5.0).frame_id)
try:
    create_camera(PylonConfig()).open()
except CameraNotFound as error:
    print(error)
"""
    done = run_python(code, PYLON_CAMEMU="2")  # the second camera is left open on purpose
    assert (done.returncode, done.stderr) == (0, "")
    several, serial, frame_id, no_hardware = done.stdout.splitlines()
    assert "0815-0000, 0815-0001" in several
    assert (serial, frame_id) == ("0815-0001", "0")
    assert "found: none" in no_hardware or "0815" not in no_hardware


def test_pypylon_is_not_loaded_for_other_cameras() -> None:
    code = """
import sys
from drivers.camera import create_camera
from drivers.config import SimulatedConfig
camera = create_camera(SimulatedConfig(width_px=64, height_px=64))
camera.open()
camera.close()
print(any(name.startswith("pypylon") for name in sys.modules))
"""
    done = run_python(code)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "False", "")
