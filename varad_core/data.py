"""Images: read from files, listed from a folder of good parts."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import cv2
import numpy as np
from numpy.typing import NDArray

from varad_core.types import DataError

ImageRgb = NDArray[np.uint8]
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
MIN_GOOD_PARTS = 8


def load_image(path: Path) -> ImageRgb:
    """Read an image as uint8 (H, W, 3) RGB.

    Raises:
        DataError: it is missing, damaged, or has more than 8 bits a channel.
    """
    if not path.is_file():
        raise DataError(f"image {path}: no such file")
    data = np.fromfile(path, np.uint8)
    try:
        image_bgr = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data.size else None
    except cv2.error:  # its header announces more pixels than can be decoded
        image_bgr = None
    if image_bgr is None:
        raise DataError(
            f"image {path}: cannot be decoded; the file is damaged or not an image, remove or replace it"
        )
    if image_bgr.dtype != np.uint8:
        raise DataError(
            f"image {path}: values are {image_bgr.dtype}, the highest {image_bgr.max():g}, and nothing says "
            "which of them is white; save it with 8 bits a channel"
        )
    return np.ascontiguousarray(image_bgr[..., ::-1])


def image_paths(folder: Path) -> list[Path]:
    """The images directly in a folder, by name.

    Raises:
        DataError: the folder does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"folder {folder}: no such folder")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


class ImageFiles(Sequence[ImageRgb]):
    """Images decoded on demand, so that a large training set need not fit in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> ImageRgb: ...
    @overload
    def __getitem__(self, index: slice) -> "ImageFiles": ...
    def __getitem__(self, index: int | slice) -> "ImageRgb | ImageFiles":
        if isinstance(index, slice):
            return ImageFiles(self.paths[index])
        return load_image(self.paths[index])


def good_parts(folder: Path) -> ImageFiles:
    """The training images of a folder.

    Raises:
        DataError: the folder is missing or holds too few images.
    """
    paths = image_paths(folder)
    if len(paths) < MIN_GOOD_PARTS:
        raise DataError(
            f"folder {folder}: {len(paths)} images, need at least {MIN_GOOD_PARTS} good parts "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}; not in folders within it)"
        )
    return ImageFiles(paths)


def image_digests(images: Iterable[ImageRgb]) -> list[str]:
    """sha256 of each image: of the file's bytes, or of the pixels where there is no file.

    Raises:
        DataError: a file cannot be read.
    """
    if isinstance(images, ImageFiles):
        try:
            return [hashlib.sha256(path.read_bytes()).hexdigest() for path in images.paths]
        except OSError as error:
            raise DataError(f"image {error.filename}: cannot be read ({error.strerror})") from error
    return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in images]


def images_hash(digests: Iterable[str]) -> str:
    """sha256 over the sorted digests of a set of images."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
