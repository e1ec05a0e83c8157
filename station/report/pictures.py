"""Small pictures of rejected parts: as seen, and with the anomaly map laid over."""

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE_PX = 300  # about 21 mm at 360 dpi
_JPEG_QUALITY = 88
_OPACITY = 0.62


def picture(image_rgb: NDArray[np.uint8]) -> bytes:
    """The part as seen: JPEG of a square of `SIZE_PX`, the rest of it dark grey."""
    return _jpeg(_fit(image_rgb))


def overlay(image_rgb: NDArray[np.uint8], anomaly_map: NDArray[np.float32], limit_reject: float) -> bytes:
    """The part with its map on a scale that is fixed to the limit, and a contour round what lies above it.

    Below half the limit the part is bare; the colour is full at twice the limit.

    Args:
        image_rgb: uint8 (H, W, 3).
        anomaly_map: float32 (h, w), covering the whole image.
        limit_reject: in the unit of the map.
    """
    height, width = image_rgb.shape[:2]
    values = cv2.resize(np.nan_to_num(anomaly_map), (width, height), interpolation=cv2.INTER_LINEAR)
    ratio = _fit((values / max(limit_reject, 1e-12)).astype(np.float32))
    grey = cv2.cvtColor(cv2.cvtColor(_fit(image_rgb), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    level = np.clip(ratio * 127.5, 0, 255).astype(np.uint8)
    heat = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    alpha = np.clip((ratio - 0.5) / 0.75, 0, 1)[..., None] * _OPACITY
    mixed = (grey * (1 - alpha) + heat * alpha).astype(np.uint8)
    contours, _ = cv2.findContours((ratio > 1).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(mixed, contours, -1, (0, 0, 0), 4, cv2.LINE_AA)
    cv2.drawContours(mixed, contours, -1, (255, 255, 255), 2, cv2.LINE_AA)
    return _jpeg(mixed)


def _fit(pixels: NDArray[Any]) -> NDArray[Any]:
    """Shrink or grow into the square, keeping the shape, with a dark border of what is left."""
    height, width = pixels.shape[:2]
    scale = SIZE_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    fitted = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (SIZE_PX - size[1]) // 2, (SIZE_PX - size[0]) // 2
    border = (36, 40, 44) if pixels.ndim == 3 else 0
    bottom, right = SIZE_PX - size[1] - top, SIZE_PX - size[0] - left
    bordered = cv2.copyMakeBorder(fitted, top, bottom, left, right, cv2.BORDER_CONSTANT, value=border)
    return cast(NDArray[Any], bordered)


def _jpeg(image_rgb: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    assert done
    return data.tobytes()
