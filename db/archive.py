"""Pictures and anomaly maps beside the record.

    <root>/YYYY/MM/DD/HH/<uid>.jpg | .png     the picture; UTC hours
    <root>/YYYY/MM/DD/HH/<uid>.map.png        the map at its native size, 16 bits

A file is written under a temporary name, fsynced, renamed, its folder fsynced, and only then may its row be
written: a row never names a file that is not there. What a kill leaves behind (temporary files, files without
a row) `sweep` removes at start.

In a map, v >= 1 means `offset + step * (v - 1)`, in the unit of the score; 0 means "not finite". Offset and
step are float64, spread over the map's own range (nothing is clipped), and stored in the PNG itself as a tEXt
chunk `varad-map: offset step`, so that a map can be read without its row.
"""

import math
import os
import re
import struct
import zlib
from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from db.errors import RecordDamaged, RecordError, RecordMissing, record_errors

_JPEG_QUALITY = 90
_PNG_MAP = [cv2.IMWRITE_PNG_COMPRESSION, 1]
# Half the time of zlib's usual way at level 1 and a sixth fewer bytes: a camera's noise has no repetitions to
# look for, only neighbours that are alike.
_PNG_IMAGE = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG),
]
_LEVELS = 65534  # 16 bits without the 0 that means "not finite", counted in steps
_MOST_ORPHANS = 500  # more than the pictures that can be on their way to one commit
_KEYWORD = b"varad-map"
_AFTER_IHDR = 33  # PNG: 8 bytes of signature, 25 of IHDR
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """Paths relative to the archive's root, as they stand in the row; None for what was not given."""

    image_path: str | None
    map_path: str | None


@dataclass(frozen=True, slots=True)
class Swept:
    """Where pictures and rows do not fit, as a sweep found it.

    Attributes:
        removed: files no row knew, removed.
        left: files no row knew, left as they were too many for a kill.
        missing: files that a row names and that are not there, although retention has left older ones.
    """

    removed: int = 0
    left: int = 0
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line; empty when all fits."""
        found = []
        if self.missing:
            found.append(f"{len(self.missing)} named by a row and not there, as {self.missing[0]}")
        if self.removed:
            found.append(f"{self.removed} that no row names removed")
        if self.left:
            found.append(
                f"{self.left} that no row names kept, as they may be all that is left of their parts"
            )
        return "; ".join(found)


class Archive:
    """The folder of pictures and maps."""

    def __init__(self, root: Path) -> None:
        """Use `root`; it is created with the first picture."""
        self.root = root

    def store(
        self,
        uid: str,
        triggered_unix_ns: int,
        image_rgb: NDArray[np.uint8] | None,
        anomaly_map: NDArray[np.float32] | None,
        lossless: bool,
    ) -> StoredFiles:
        """Keep a part's picture and map. Returns when both are on the disk. Repeating the call replaces them.

        Args:
            uid: becomes the file's name; letters, digits, `_ . -`.
            triggered_unix_ns: chooses the folder.
            image_rgb: uint8 (H, W, 3), or None.
            anomaly_map: float32 (h, w), or None.
            lossless: PNG instead of JPEG at quality 90.

        Raises:
            DiskFull, RecordReadOnly: neither picture nor map of this call is left behind half-written.
            ValueError: a uid that is no file name, or an array of the wrong shape.
        """
        if not _UID.fullmatch(uid):
            raise ValueError(f"uid must be 1 to 128 letters, digits, '_', '.', '-' (got {uid!r})")
        folder = datetime.fromtimestamp(triggered_unix_ns // 1_000_000_000, UTC).strftime("%Y/%m/%d/%H")
        image_path = map_path = None
        with record_errors(self.root):
            if image_rgb is not None:
                image_path = f"{folder}/{uid}.{'png' if lossless else 'jpg'}"
                self._write(image_path, _encode_image(image_rgb, lossless))
            if anomaly_map is not None:
                map_path = f"{folder}/{uid}.map.png"
                self._write(map_path, _encode_map(anomaly_map))
        return StoredFiles(image_path, map_path)

    def load_image(self, path: str) -> NDArray[np.uint8]:
        """A stored picture, uint8 (H, W, 3) RGB.

        Raises:
            RecordMissing: the file is gone (retention).
            RecordDamaged: it cannot be decoded.
        """
        image = _decode(self._path(path), self._read(path), cv2.IMREAD_COLOR)
        return cast(NDArray[np.uint8], cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    def load_map(self, path: str) -> NDArray[np.float32]:
        """A stored map, float32 (h, w), within half a step of what was stored; NaN where it was not finite.

        Raises:
            RecordMissing: the file is gone (retention).
            RecordDamaged: it cannot be decoded.
        """
        data = self._read(path)
        levels = _decode(self._path(path), data, cv2.IMREAD_UNCHANGED)
        scale = _read_scale(data)
        if scale is None or levels.dtype != np.uint16 or levels.ndim != 2:
            raise RecordDamaged(f"{self._path(path)}: not an anomaly map of this archive; remove it")
        offset, step = scale
        largest = float(np.finfo(np.float32).max)  # rounding must not carry a value over it
        values = np.clip(offset + step * (levels.astype(np.float64) - 1.0), -largest, largest)
        anomaly_map = values.astype(np.float32)
        anomaly_map[levels == 0] = np.nan
        return anomaly_map

    def sweep(self, known_paths: Set[str] | None) -> Swept:
        """Remove what a kill left: temporary files, and files no row knows, while nobody writes; and look
        which files are missing. None = rows are lost: whether a file has its row cannot be told.

        A kill leaves few orphans. Where there are many, or no row knows any file, it is rows that are lost,
        not pictures that are too many: then none is touched, as it may be all that is left of these parts.
        """
        with record_errors(self.root):
            files = {
                path.relative_to(self.root).as_posix() for hour in self.hours() for path in hour.iterdir()
            }
            temporary = {path for path in files if path.endswith(".tmp")}
            present = files - temporary
            known_paths = present if known_paths is None else known_paths
            orphans = present - known_paths
            few = bool(known_paths) and len(orphans) <= _MOST_ORPHANS
            for path in temporary | (orphans if few else set()):
                (self.root / path).unlink()
        oldest = {is_pass(path): path for path in sorted(present, reverse=True)}
        gone = known_paths - present
        missing = {
            path for path in gone if not oldest or _hour(path) >= _hour(oldest.get(is_pass(path), "~"))
        }
        removed, left = (len(orphans), 0) if few else (0, len(orphans))
        return Swept(removed, left, tuple(sorted(missing)))

    def hours(self) -> list[Path]:
        """The folders that hold files, one an hour, oldest first."""
        return sorted(self.root.glob("[0-9][0-9][0-9][0-9]/[0-9][0-9]/[0-9][0-9]/[0-9][0-9]"))

    def _path(self, path: str) -> Path:
        found = self.root / path
        if not found.resolve().is_relative_to(self.root.resolve()):
            raise RecordError(f"{path}: lies outside the archive {self.root}; the row was tampered with")
        return found

    def _read(self, path: str) -> bytes:
        found = self._path(path)
        try:
            with record_errors(found):
                return found.read_bytes()
        except RecordError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise RecordMissing(f"{found}: the picture is no longer kept; its row is") from error
            raise

    def _write(self, relative: str, data: bytes) -> None:
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def is_pass(path: str) -> bool:
    """Whether retention lets go of a file with the pictures of passed parts."""
    return path.endswith(".jpg")


def _hour(path: str) -> str:
    return path.rpartition("/")[0] or path


def sync_folder(folder: Path) -> None:
    """Have the disk know the names of the files in a folder."""
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def _encode_image(image_rgb: NDArray[np.uint8], lossless: bool) -> bytes:
    if image_rgb.dtype != np.uint8 or image_rgb.ndim != 3 or image_rgb.shape[2] != 3:
        raise ValueError(f"image_rgb must be uint8 (H, W, 3) (got {image_rgb.dtype} {image_rgb.shape})")
    image_bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    if lossless:
        return _encode(".png", image_bgr, _PNG_IMAGE)
    return _encode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])


def _encode_map(anomaly_map: NDArray[np.float32]) -> bytes:
    if anomaly_map.ndim != 2 or anomaly_map.size == 0:
        raise ValueError(f"anomaly_map must be (h, w) (got {anomaly_map.shape})")
    values = anomaly_map.astype(np.float64)
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    step = float(high - low) / _LEVELS or 1.0
    offset = float(low)
    levels = np.where(finite, np.rint((np.where(finite, values, low) - offset) / step) + 1.0, 0.0)
    png = _encode(".png", levels.astype(np.uint16), _PNG_MAP)
    text = b"tEXt" + _KEYWORD + b"\0" + f"{offset!r} {step!r}".encode("latin-1")
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return png[:_AFTER_IHDR] + chunk + png[_AFTER_IHDR:]


def _read_scale(png: bytes) -> tuple[float, float] | None:
    if png[_AFTER_IHDR + 4 : _AFTER_IHDR + 8] != b"tEXt":
        return None
    (size,) = struct.unpack_from(">I", png, _AFTER_IHDR)
    keyword, _, value = png[_AFTER_IHDR + 8 : _AFTER_IHDR + 8 + size].partition(b"\0")
    try:
        offset, step = (float(number) for number in value.decode("latin-1").split())
    except ValueError:
        return None
    return (offset, step) if keyword == _KEYWORD and math.isfinite(offset) and math.isfinite(step) else None


def _encode(extension: str, pixels: NDArray[Any], settings: list[int]) -> bytes:
    done, data = cv2.imencode(extension, pixels, settings)
    if not done:
        raise RecordError(f"a picture of {pixels.shape} could not be encoded as {extension}")
    return data.tobytes()


def _decode(path: Path, data: bytes, flags: int) -> NDArray[np.uint8]:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise RecordDamaged(f"{path}: announces more pixels than can be decoded; remove it") from error
    if pixels is None:
        raise RecordDamaged(f"{path}: the picture is damaged; remove it")
    return cast(NDArray[np.uint8], pixels)
