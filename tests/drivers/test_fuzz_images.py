"""Whatever an image file holds: a picture, or one line that names the file; and no header eats the memory."""

import struct
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drivers.config import ReplayConfig
from drivers.errors import CameraError
from drivers.replay import SUFFIXES, ReplayCamera, read_rgb
from drivers.types import ImageRgb
from tests.fuzzing import announced_png, bounded, examples, is_one_line, mutations

pytestmark = pytest.mark.fuzz

Read = Callable[[bytes], ImageRgb | None]


def bmp(width_px: int, height_px: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width_px, height_px, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 300, 0, 0, 54) + head + bytes(300)


def exif(orientation: int) -> bytes:
    """An APP1 segment that says how the picture is to be turned."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    content = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def encoded(suffix: str) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 255, (12, 16, 3), np.uint8)
    done, data = cv2.imencode(suffix, pixels)
    assert done
    return data.tobytes()


JPEG = encoded(".jpg")
FILES = [encoded(suffix) for suffix in sorted(SUFFIXES)]
TURNED = [JPEG[:2] + exif(orientation) + JPEG[2:] for orientation in (0, 3, 6, 9, 65_535)]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    path = tmp_path_factory.mktemp("fuzz") / "part.png"

    def decode(content: bytes) -> ImageRgb | None:
        path.write_bytes(content)
        with bounded():
            try:
                image_rgb = read_rgb(path)
            except CameraError as error:
                assert is_one_line(error), repr(str(error))
                assert str(path) in str(error)
                return None
        assert image_rgb.dtype == np.uint8
        assert image_rgb.ndim == 3
        assert image_rgb.shape[2] == 3
        assert image_rgb.size
        return image_rgb

    return decode


@examples(100)
@given(
    content=st.binary(max_size=300)
    | st.sampled_from(FILES).flatmap(lambda file: st.binary().map(file[:12].__add__))
)
def test_bytes(read: Read, content: bytes) -> None:
    read(content)


@examples(100)
@given(content=st.sampled_from(FILES + TURNED).flatmap(mutations))
@example(content=announced_png(60_000, 60_000))
@example(content=announced_png(30_000, 30_000))
@example(content=announced_png(1_000_000, 1_000))
@example(content=bmp(60_000, 60_000))
@example(content=bmp(2**31 - 1, -(2**31)))
@example(content=bmp(20_000, 20_000))
def test_a_damaged_file(read: Read, content: bytes) -> None:
    read(content)


def test_a_picture_is_turned_as_it_says_and_by_nothing_else(read: Read) -> None:
    shapes = [image.shape[:2] for image in map(read, TURNED) if image is not None]
    assert shapes == [(12, 16), (12, 16), (16, 12), (12, 16), (12, 16)]


@examples(20)
@given(contents=st.lists(st.sampled_from(FILES + TURNED).flatmap(mutations), min_size=1, max_size=4))
def test_a_folder_of_damaged_files_is_a_camera_that_fails_part_by_part(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("replay")
    (folder / "0.png").write_bytes(FILES[0])
    for number, content in enumerate(contents, 1):
        (folder / f"{number}.jpg").write_bytes(content)
    camera = ReplayCamera(ReplayConfig(folder=folder))
    camera.open()
    try:
        for _ in range(2 * (len(contents) + 1)):
            camera.trigger()
            grab = camera.retrieve(20.0)
            assert grab is not None
            assert (grab.image_rgb is None) == bool(grab.error)
    finally:
        camera.close()
