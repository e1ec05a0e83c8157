"""A folder of images as a camera: path order, one image per trigger.

The next file is decoded on one thread of this camera while the previous picture is being looked at, so that
the time from trigger to picture is not the decoding; `close` joins the thread.
"""

import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from drivers.ahead import Ahead
from drivers.config import ReplayConfig
from drivers.errors import CameraError, CameraNotFound
from drivers.types import CameraInfo, Grab, ImageRgb

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH  # or 12 bits of 16 would come out nearly black


def read_rgb(path: Path) -> ImageRgb:
    """An image file as uint8 (H, W, 3), read-only.

    Raises:
        CameraError: the file is missing, empty, damaged or truncated, or has more than 8 bits a channel; the
            message names it.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise CameraError(f"{path}: cannot be read ({error.strerror}); restore it or take it out") from error
    try:
        decoded = cv2.imdecode(data, _AS_STORED) if data.size else None
    except cv2.error as error:
        raise CameraError(f"{path}: announces more pixels than can be decoded; take it out") from error
    if decoded is None:
        raise CameraError(f"{path}: damaged or not an image ({data.size} bytes); replace it or take it out")
    if decoded.dtype != np.uint8:
        raise CameraError(f"{path}: values are {decoded.dtype}; save it with 8 bits a channel")
    image_rgb = np.asarray(decoded, np.uint8)
    image_rgb.setflags(write=False)
    return image_rgb


class ReplayCamera:
    """See the module's docstring and `drivers.camera.Camera`."""

    def __init__(self, config: ReplayConfig) -> None:
        """Nothing is read before `open`."""
        self._config = config
        self._files: list[Path] = []
        self._ahead: Ahead[Grab] | None = None
        self._pending: Future[Grab] | None = None
        self._next = 0

    def open(self) -> CameraInfo:
        """List the folder and decode up to the first good image; every `open` starts at the first file.

        Raises:
            CameraNotFound: no folder, or no image in it that can be decoded.
        """
        self.close()
        folder = self._config.folder
        if not folder.is_dir():
            raise CameraNotFound(
                f"{self._config.camera_id}: no folder {folder}; create it or correct `folder`"
            )
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        width_px, height_px = self._first_size(files)
        self._files = files
        self._next = 0
        self._ahead = Ahead(self._load, "replay")
        self._ahead.begin(0)
        return CameraInfo(
            camera_id=self._config.camera_id,
            model=f"Replay of {len(files)} images",
            serial=folder.name,
            width_px=width_px,
            height_px=height_px,
            fixed_size=False,
        )

    def trigger(self) -> None:
        """Never blocks and is never busy; a picture not yet retrieved is skipped.

        Raises:
            CameraError: it is not open.
        """
        if self._ahead is None:
            raise CameraError(f"{self._config.camera_id}: trigger on a closed camera; open it first")
        self._pending = self._ahead.begin(self._next)
        self._next += 1

    def retrieve(self, timeout_s: float) -> Grab | None:
        """The picture of the last trigger, or None when it is not decoded after `timeout_s`.

        Raises:
            CameraError: it is not open.
        """
        if self._ahead is None:
            raise CameraError(f"{self._config.camera_id}: retrieve on a closed camera; open it first")
        if self._pending is None:
            time.sleep(timeout_s)
            return None
        try:
            grab = self._pending.result(timeout_s)
        except FutureTimeoutError:
            return None
        self._pending = None
        self._ahead.begin(self._next)
        return replace(grab, captured_ns=time.perf_counter_ns())

    def close(self) -> None:
        """Join the decoding thread."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()
        self._pending = None

    def _first_size(self, files: list[Path]) -> tuple[int, int]:
        problem = f"no {', '.join(sorted(SUFFIXES))} file in {self._config.folder}; put images there"
        for path in files:
            try:
                height_px, width_px, _ = read_rgb(path).shape
            except CameraError as error:
                problem = f"no readable image in {self._config.folder}; the last: {error}"
            else:
                return width_px, height_px
        raise CameraNotFound(f"{self._config.camera_id}: {problem}")

    def _load(self, index: int) -> Grab:
        now_ns = time.perf_counter_ns()
        if index >= len(self._files) and not self._config.loop:
            shown = f"all {len(self._files)} images of {self._config.folder} were shown"
            return Grab(index, None, now_ns, f"end of the replay: {shown}; set `loop: true` to go on")
        path = self._files[index % len(self._files)]
        device = {"file": path.relative_to(self._config.folder).as_posix()}
        try:
            return Grab(index, read_rgb(path), now_ns, device=device)
        except CameraError as error:
            return Grab(index, None, now_ns, str(error), device)
