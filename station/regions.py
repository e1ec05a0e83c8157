"""Where on the part: boxes round the areas of an anomaly map above a limit."""

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_REGIONS = 8

Region = tuple[float, float, float, float]


def find_regions(anomaly_map: NDArray[np.float32], limit: float) -> tuple[Region, ...]:
    """Boxes (x, y, width, height) as fractions of the map, of its areas above `limit`, largest area first.

    Where none is, the map's highest value is boxed, so that a verdict never comes without a place: a small
    part in a large image covers few cells of the map, and its peak can fall between them.
    """
    height, width = anomaly_map.shape
    levels = np.nan_to_num(anomaly_map, nan=np.inf, neginf=-1e30)  # below it there is still a number
    above = (levels > min(limit, np.nextafter(levels.max(), -np.inf))).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    largest = sorted(range(1, count), key=lambda label: -int(stats[label, cv2.CC_STAT_AREA]))[:MAX_REGIONS]
    return tuple(
        (
            float(stats[label, cv2.CC_STAT_LEFT]) / width,
            float(stats[label, cv2.CC_STAT_TOP]) / height,
            float(stats[label, cv2.CC_STAT_WIDTH]) / width,
            float(stats[label, cv2.CC_STAT_HEIGHT]) / height,
        )
        for label in largest
    )
