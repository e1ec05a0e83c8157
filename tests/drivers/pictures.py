from pathlib import Path

import cv2
import numpy as np


def write_png(path: Path, rgb: tuple[int, int, int], width_px: int = 40, height_px: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image_bgr = np.full((height_px, width_px, 3), rgb[::-1], np.uint8)
    ok, data = cv2.imencode(".png", image_bgr)
    assert ok
    path.write_bytes(data.tobytes())
