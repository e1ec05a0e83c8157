"""The heatmap and the contours of a part, from its map. Pure functions, safe in any thread.

The scale is fixed to the limit, never to the image: 0 nothing, 128 = the reject limit, 255 = twice that.
What lies under the limit is transparent, so a good part does not glow.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QPointF
from PySide6.QtGui import QImage, QPolygonF

MapU8 = NDArray[np.uint8]  # (map_height, map_width)

LIMIT_U8 = 128
_RAMP = (  # map value -> red, green, blue, alpha (0 to 255), linear between
    (LIMIT_U8, 176, 28, 84, 0),
    (LIMIT_U8 + 22, 220, 70, 40, 150),
    (192, 250, 150, 30, 185),
    (255, 255, 240, 150, 205),
)
_CONTOUR_GRID_PX = 384  # contours are traced on a map enlarged to about this, for smooth lines
_CONTOUR_MARGIN = 0.012  # of the map's longer side: the line runs beside the defect, not over it


def _premultiplied_ramp() -> NDArray[np.uint8]:
    """(256, 4) uint8, blue, green, red, alpha: the byte order of ARGB32 on little-endian machines."""
    stops = np.array(_RAMP, dtype=np.float64)
    values = np.arange(256)
    red, green, blue, alpha = (np.interp(values, stops[:, 0], stops[:, channel]) for channel in (1, 2, 3, 4))
    share = alpha / 255.0
    return np.rint(np.stack((blue * share, green * share, red * share, alpha), axis=1)).astype(np.uint8)


RAMP_BGRA = _premultiplied_ramp()


def heatmap_image(map_u8: MapU8) -> QImage:
    """The map as a premultiplied ARGB image of its own (small) size; Qt stretches it over the picture."""
    bgra = np.ascontiguousarray(RAMP_BGRA[map_u8])
    height, width = map_u8.shape
    return QImage(bgra.data, width, height, 4 * width, QImage.Format.Format_ARGB32_Premultiplied).copy()


def contours(map_u8: MapU8) -> tuple[QPolygonF, ...]:
    """A closed line round each region above the limit, in fractions of the picture, largest first."""
    if not map_u8.size or int(map_u8.max()) <= LIMIT_U8:
        return ()
    height, width = map_u8.shape
    # Odd, so that each cell's own value is among the enlarged: a lone cell above the limit keeps its line.
    factor = round(_CONTOUR_GRID_PX / max(height, width)) | 1
    grid = cv2.resize(map_u8, (width * factor, height * factor), interpolation=cv2.INTER_LINEAR)
    above = (grid > LIMIT_U8).astype(np.uint8)
    radius = max(1, round(_CONTOUR_MARGIN * max(grid.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    # A border lets a region at the edge grow, and so close its line, before it is cut off again.
    above = cv2.dilate(cv2.copyMakeBorder(above, radius, radius, radius, radius, cv2.BORDER_CONSTANT), disc)
    found, _ = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    lines = []
    for line in sorted(found, key=cv2.contourArea, reverse=True):
        points = (_smooth(line.reshape(-1, 2).astype(np.float64)) + 0.5 - radius) / (
            width * factor,
            height * factor,
        )
        points = np.clip(points, 0.0, 1.0)
        lines.append(QPolygonF([QPointF(x, y) for x, y in points[::2]]))
    return tuple(lines)


def _smooth(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A closed line (N, 2) without the staircase of its pixels."""
    reach = min(4, len(points) // 4)
    shifted = [np.roll(points, shift, axis=0) for shift in range(-reach, reach + 1)]
    mean: NDArray[np.float64] = np.mean(shifted, axis=0)
    return mean
