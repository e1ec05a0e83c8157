"""A part's picture ready to paint. Decoded and resized here, in the caller's thread: never the GUI's."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QSize
from PySide6.QtGui import QImage, QPolygonF

from station.types import Preview, Verdict
from ui.overlay import MapU8, contours, heatmap_image

ImageRgb = NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One part's picture with its overlay.

    Attributes:
        fps: parts a second of its camera; 0 for a picture from the record.
        image: as published or recorded; null when the part has no picture.
        fitted: the same at the size it is painted at unzoomed, so that the GUI thread only copies pixels.
        heatmap: small, premultiplied, to be stretched over the picture; None where there is no map.
        contours: lines round the regions above the limit, in fractions of the picture.
    """

    part_seq: int
    camera_id: str
    verdict: Verdict
    triggered_unix_ns: int
    fps: float
    image: QImage
    fitted: QImage
    heatmap: QImage | None
    contours: tuple[QPolygonF, ...]


def from_preview(preview: Preview, box_px: tuple[int, int]) -> Picture:
    """Decode a published preview; `fitted` fills a box of `box_px` (width, height)."""
    shape = (preview.height, preview.width, 3)
    map_shape = (preview.map_height, preview.map_width)
    return compose(
        np.frombuffer(preview.image_rgb, np.uint8).reshape(shape),
        np.frombuffer(preview.map_u8, np.uint8).reshape(map_shape),
        box_px,
        part_seq=preview.part_seq,
        camera_id=preview.camera_id,
        verdict=preview.verdict,
        triggered_unix_ns=preview.triggered_unix_ns,
        fps=preview.fps,
    )


def compose(
    image_rgb: ImageRgb,
    map_u8: MapU8,
    box_px: tuple[int, int],
    *,
    part_seq: int,
    camera_id: str,
    verdict: Verdict,
    triggered_unix_ns: int,
    fps: float = 0.0,
) -> Picture:
    """A picture from its arrays: `image_rgb` (H, W, 3) and `map_u8` (h, w) uint8, either maybe empty."""
    return Picture(
        part_seq=part_seq,
        camera_id=camera_id,
        verdict=verdict,
        triggered_unix_ns=triggered_unix_ns,
        fps=fps,
        image=_rgb_image(image_rgb),
        fitted=_rgb_image(fit(image_rgb, box_px)),
        heatmap=heatmap_image(map_u8) if map_u8.size else None,
        contours=contours(map_u8),
    )


def fitted_size(width: int, height: int, box_px: tuple[int, int]) -> QSize:
    """The largest size of the same aspect within the box; at least one pixel."""
    share = min(box_px[0] / max(1, width), box_px[1] / max(1, height))
    return QSize(max(1, round(width * share)), max(1, round(height * share)))


def fit(image_rgb: ImageRgb, box_px: tuple[int, int]) -> ImageRgb:
    """Resize (H, W, 3) into a box (width, height): exact halvings by area, the rest linear."""
    height, width = image_rgb.shape[:2]
    if not image_rgb.size or min(box_px) < 1:
        return image_rgb[:0]
    size = fitted_size(width, height, box_px)
    resized = image_rgb
    while resized.shape[1] >= 2 * size.width() and resized.shape[0] >= 2 * size.height():
        half = (resized.shape[1] // 2, resized.shape[0] // 2)
        resized = cv2.resize(resized, half, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    fitted: ImageRgb = cv2.resize(resized, size.toTuple(), interpolation=cv2.INTER_LINEAR)
    return fitted


def _rgb_image(image_rgb: ImageRgb) -> QImage:
    if not image_rgb.size:
        return QImage()
    pixels = np.ascontiguousarray(image_rgb)
    height, width = pixels.shape[:2]
    # The conversion copies: the QImage does not outlive the array it looks into.
    return QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888).convertToFormat(
        QImage.Format.Format_RGB32
    )
