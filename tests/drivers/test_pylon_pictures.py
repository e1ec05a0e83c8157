"""Pictures written once: grabbed or converted into the memory that they stay in, and unchanged there."""

import random
import threading
import time
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from drivers.camera import private_memory
from drivers.config import PylonConfig
from drivers.pylon.camera import PylonCamera
from drivers.pylon.pictures import BUFFERS, HELD_AT_MOST, GrabbedInPlace
from drivers.types import ImageRgb

FORMATS = ["RGB8Packed", "BGR8Packed", "BayerRG8", "Mono8"]


class Memory:
    """Hands out memory, and knows what of it is still in use."""

    def __init__(self) -> None:
        self.lent: dict[int, weakref.ref[NDArray[np.uint8]]] = {}

    def __call__(self, size: int) -> NDArray[np.uint8]:
        made = np.empty(size, np.uint8)
        self.lent[made.ctypes.data] = weakref.ref(made)
        return made

    def in_use(self) -> int:
        return sum(one() is not None for one in self.lent.values())

    def holds(self, image_rgb: ImageRgb) -> bool:
        one = self.lent.get(image_rgb.ctypes.data)
        return one is not None and one() is not None


@pytest.fixture
def memory() -> Iterator[Memory]:
    """With every byte given back at the end."""
    made = Memory()
    yield made
    assert made.in_use() == 0


def opened(pixel_format: str, memory: Memory) -> PylonCamera:
    config = PylonConfig(emulated=True, width_px=96, height_px=64, exposure_us=100, pixel_format=pixel_format)
    camera = PylonCamera(config, memory)
    camera.open()
    return camera


def picture(camera: PylonCamera) -> ImageRgb:
    camera.trigger()
    grab = camera.retrieve(5.0)
    assert grab is not None
    assert grab.image_rgb is not None
    return grab.image_rgb


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_a_picture_lies_in_the_memory_it_was_told_to(memory: Memory, pixel_format: str) -> None:
    camera = opened(pixel_format, memory)
    image_rgb = picture(camera)
    assert memory.holds(image_rgb)
    assert not image_rgb.flags.writeable
    camera.close()
    assert memory.in_use() == 1, "a picture outlives its camera, and alone"
    del image_rgb


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_however_many_pictures_are_held_more_come_and_none_changes(memory: Memory, pixel_format: str) -> None:
    camera = opened(pixel_format, memory)
    held = [picture(camera) for _ in range(3 * BUFFERS)]  # the emulator's picture moves from one to the next
    copies = [image_rgb.copy() for image_rgb in held]
    for _ in range(2 * BUFFERS):
        picture(camera)
    assert all(np.array_equal(*pair) for pair in zip(held, copies, strict=True))
    assert len({copy.tobytes() for copy in copies}) == len(copies)
    camera.close()
    held.clear()


def test_a_camera_keeps_buffers_to_grab_into_and_gets_back_what_is_let_go_of(memory: Memory) -> None:
    camera = opened("RGB8Packed", memory)
    assert memory.in_use() == BUFFERS
    for _ in range(3):
        held = [picture(camera) for _ in range(HELD_AT_MOST)]
        assert memory.in_use() == BUFFERS, "pictures lie in the buffers themselves"
        held.append(picture(camera))
        assert memory.in_use() == BUFFERS + 1, "one too many is copied"
        held.clear()
    camera.close()


def test_what_is_cut_from_a_picture_holds_its_buffer(memory: Memory) -> None:
    camera = opened("RGB8Packed", memory)
    cut = picture(camera)[3:5, 7:9]
    before = cut.copy()
    for _ in range(2 * BUFFERS):
        picture(camera)
    np.testing.assert_array_equal(cut, before)
    camera.close()
    del cut


def test_pictures_held_while_the_camera_gives_up_a_trigger_and_starts_again(memory: Memory) -> None:
    """Each restart has buffers of its own; those of the ones before live on in the pictures."""
    camera = opened("RGB8Packed", memory)
    held = []
    for _ in range(HELD_AT_MOST + 2):
        held.append(picture(camera))
        camera.trigger()  # not answered: the next trigger restarts grabbing
    copies = [image_rgb.copy() for image_rgb in held]
    held.append(picture(camera))
    assert all(np.array_equal(*pair) for pair in zip(held[:-1], copies, strict=True))
    assert memory.in_use() <= BUFFERS + len(held)
    camera.close()
    held.clear()


class PaddedResult:
    """What the emulator never sends: rows that end in bytes of no meaning. `Release` may fail."""

    Height, Width, PaddingX, BufferContext = 3, 5, 2, 0

    def __init__(self, padding: int = 2, fails: bool = False) -> None:
        self.PaddingX = padding
        self.fails = fails

    def Release(self) -> None:  # noqa: N802
        if self.fails:
            raise RuntimeError("the device is gone")


class AnyCamera:
    def SetBufferFactory(self, *_: object) -> None:  # noqa: N802
        pass


def test_rows_with_padding_are_copied_without_it() -> None:
    pictures = GrabbedInPlace(AnyCamera(), private_memory)
    pictures.AllocateBuffer(100)
    sent = np.arange(3 * 17, dtype=np.uint8).reshape(3, 17)
    pictures._buffers[0][:51] = sent.reshape(-1)
    image_rgb = pictures(PaddedResult())
    np.testing.assert_array_equal(image_rgb.reshape(3, 15), sent[:, :15])
    assert not np.shares_memory(image_rgb, pictures._buffers[0])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_result_that_cannot_be_released_costs_no_place_for_others() -> None:
    pictures = GrabbedInPlace(AnyCamera(), private_memory)
    pictures.AllocateBuffer(100)
    for _ in range(2 * HELD_AT_MOST):
        image_rgb = pictures(PaddedResult(padding=0, fails=True))
        assert np.shares_memory(image_rgb, pictures._buffers[0])
        del image_rgb


def test_threads_let_go_of_pictures_while_the_camera_opens_and_closes(memory: Memory) -> None:
    handed: list[tuple[ImageRgb, int]] = []
    stop = threading.Event()
    wrong: list[int] = []

    def look(seed: int) -> None:
        rng = random.Random(seed)
        held: list[ImageRgb] = []
        while not stop.is_set() or handed:
            try:
                image_rgb, total = handed.pop()
            except IndexError:
                held.clear()
                time.sleep(0.001)
                continue
            if int(image_rgb.sum(dtype=np.int64)) != total:
                wrong.append(total)
            held.append(image_rgb[5:6])
            del image_rgb
            if rng.random() < 0.3:
                held.clear()

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            camera = opened("RGB8Packed", memory)
            for _ in range(40):
                image_rgb = picture(camera)
                handed.append((image_rgb, int(image_rgb.sum(dtype=np.int64))))
                del image_rgb
            camera.close()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
