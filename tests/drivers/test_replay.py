from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import write_png

from drivers.config import ReplayConfig
from drivers.errors import CameraError, CameraNotFound
from drivers.replay import ReplayCamera, read_rgb
from drivers.types import Grab


def shown(camera: ReplayCamera, count: int) -> list[Grab]:
    grabs = []
    for _ in range(count):
        camera.trigger()
        grab = camera.retrieve(5.0)
        assert grab is not None
        grabs.append(grab)
    return grabs


def colour(grab: Grab) -> tuple[int, ...]:
    assert grab.image_rgb is not None
    return tuple(int(value) for value in grab.image_rgb[0, 0])


def test_path_order_below_the_folder_then_again_from_the_start(coloured_folder: Path) -> None:
    write_png(coloured_folder / "00a" / "x.PNG", (1, 2, 3), width_px=12, height_px=9)
    (coloured_folder / "notes.txt").write_text("not an image")
    camera = ReplayCamera(ReplayConfig(folder=coloured_folder))
    info = camera.open()
    grabs = shown(camera, 7)
    camera.close()
    expected = sorted(p.relative_to(coloured_folder).as_posix() for p in coloured_folder.rglob("*.[pP]*"))
    assert [grab.device["file"] for grab in grabs] == (expected * 2)[:7]
    assert {colour(grab) for grab in grabs} == {
        (1, 2, 3),
        (0, 10, 200),
        (50, 10, 150),
        (100, 10, 100),
        (150, 10, 50),
    }
    assert not info.fixed_size


def test_without_loop_the_end_is_a_failed_grab(coloured_folder: Path) -> None:
    camera = ReplayCamera(ReplayConfig(folder=coloured_folder, loop=False))
    camera.open()
    *pictures, end, after = shown(camera, 6)
    camera.close()
    assert all(grab.image_rgb is not None for grab in pictures)
    assert end.image_rgb is None
    assert "all 4 images" in end.error
    assert (end.frame_id, after.frame_id) == (4, 5)


@pytest.mark.parametrize("keep_bytes", [0, 20, 60])
def test_a_damaged_file_is_a_failed_grab_naming_it(coloured_folder: Path, keep_bytes: int) -> None:
    damaged = coloured_folder / "01.png"
    damaged.write_bytes(damaged.read_bytes()[:keep_bytes])
    camera = ReplayCamera(ReplayConfig(folder=coloured_folder))
    camera.open()
    good, failed, next_good = shown(camera, 3)
    camera.close()
    assert "01.png" in failed.error
    assert failed.image_rgb is None
    assert colour(good) == (0, 10, 200)
    assert colour(next_good) == (100, 10, 100)


def test_a_file_that_vanishes_while_running_is_a_failed_grab(coloured_folder: Path) -> None:
    camera = ReplayCamera(ReplayConfig(folder=coloured_folder))
    camera.open()
    shown(camera, 1)
    (coloured_folder / "02.png").unlink()
    grabs = shown(camera, 3)
    camera.close()
    assert [bool(grab.error) for grab in grabs] == [False, True, False]
    assert "02.png" in grabs[1].error


def test_a_folder_without_a_usable_image_cannot_be_opened(tmp_path: Path) -> None:
    camera = ReplayCamera(ReplayConfig(folder=tmp_path))
    with pytest.raises(CameraNotFound, match=r"no .*\.png.* file in .*put images there"):
        camera.open()
    (tmp_path / "only.png").write_bytes(b"nonsense")
    with pytest.raises(CameraNotFound, match=r"no readable image.*only\.png"):
        camera.open()
    with pytest.raises(CameraNotFound, match=r"no folder .*correct `folder`"):
        ReplayCamera(ReplayConfig(folder=tmp_path / "typo")).open()


def test_the_first_picture_gives_the_size_even_behind_a_damaged_one(coloured_folder: Path) -> None:
    (coloured_folder / "00.png").write_bytes(b"nonsense")
    camera = ReplayCamera(ReplayConfig(folder=coloured_folder))
    info = camera.open()
    camera.close()
    assert (info.width_px, info.height_px) == (40, 30)


def test_grey_pictures_become_rgb_and_missing_ones_are_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((4, 6), 77, np.uint8))
    image_rgb = read_rgb(tmp_path / "grey.png")
    assert image_rgb.shape == (4, 6, 3)
    assert (image_rgb == 77).all()
    with pytest.raises(CameraError, match=r"gone\.png"):
        read_rgb(tmp_path / "gone.png")


def test_real_photographs(pills: Path) -> None:
    camera = ReplayCamera(ReplayConfig(folder=pills))
    info = camera.open()
    grabs = shown(camera, 3)
    camera.close()
    names = sorted(path.name for path in pills.iterdir())[:3]
    assert [grab.device["file"] for grab in grabs] == names
    for grab in grabs:
        assert grab.image_rgb is not None
        assert grab.image_rgb.shape == (info.height_px, info.width_px, 3)
        assert grab.image_rgb.std() > 5


def test_a_file_of_more_than_8_bits_a_channel_is_a_failed_grab_naming_it(coloured_folder: Path) -> None:
    cv2.imwrite(str(coloured_folder / "01.png"), np.full((32, 32), 4095, np.uint16))
    with pytest.raises(CameraError, match=r"01\.png: values are uint16; save it with 8 bits"):
        read_rgb(coloured_folder / "01.png")
