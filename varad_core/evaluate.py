"""Test a method on a set's images: the figures of a benchmark row."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from varad_core.config import VaradConfig
from varad_core.data import ImageFiles, load_image
from varad_core.datasets import Dataset, load_mask
from varad_core.inspector import Inspector
from varad_core.metrics import aupro_binned, detection, localisation
from varad_core.train import Progress, train
from varad_core.types import AnomalyResult

METRIC_SIDE_PX = 256  # maps and masks are compared at this size, as most published figures are


@dataclass(frozen=True, slots=True)
class Figures:
    """What one set says of one method; the pixel figures are None without masks.

    Attributes:
        image_auroc: see `varad_core.metrics.Detection`, as are the next five.
        image_ap: of the image scores.
        image_max_f1: of the image scores.
        pixel_auroc: of all pixels of all maps together.
        pixel_ap: of all pixels.
        pixel_max_f1: of all pixels.
        aupro: exact, see `varad_core.metrics.aupro`.
        aupro_binned: its fast approximation.
        ms_per_image: median of one image in memory to score and map, one at a time.
    """

    image_auroc: float
    image_ap: float
    image_max_f1: float
    pixel_auroc: float | None
    pixel_ap: float | None
    pixel_max_f1: float | None
    aupro: float | None
    aupro_binned: float | None
    ms_per_image: float


def evaluate(
    dataset: Dataset,
    config: VaradConfig,
    *,
    weights: Path | None,
    limit_train: int,
    progress: Progress,
    device: str = "cpu",
) -> tuple[Figures, Inspector]:
    """Train on a set's good parts, then test.

    Args:
        dataset: see `varad_core.datasets.open_dataset`.
        config: what to train.
        weights: the tokenizer's.
        limit_train: at most so many training images, drawn by the configuration's seed; 0 = all.
        progress: see `train`.
        device: see `train`.

    Raises:
        DataError: the set cannot be used.
        WeightsError: see `create_tokenizer`.
    """
    good = ImageFiles(dataset.draw_train(limit_train, config.training.seed))
    inspector = train(good, config, name=dataset.name, weights=weights, progress=progress, device=device)
    inspector.warm_up()
    return measure(dataset, inspector.inspect, progress), inspector


def measure(
    dataset: Dataset, inspect: Callable[[NDArray[np.uint8]], AnomalyResult], progress: Progress
) -> Figures:
    """Figures of a fitted and warmed-up method on a set's test images.

    Raises:
        DataError: an image or mask cannot be read.
    """
    scores, maps, masks, elapsed_ms = [], [], [], []
    for index, entry in enumerate(dataset.test):
        image_rgb = load_image(entry.path)
        begun_ns = time.perf_counter_ns()
        result = inspect(image_rgb)
        elapsed_ms.append((time.perf_counter_ns() - begun_ns) / 1e6)
        scores.append(result.score)
        mask = _mask(entry.mask_path, bool(entry.defect))
        if mask is not None:
            side = METRIC_SIDE_PX, METRIC_SIDE_PX
            masks.append(mask)
            maps.append(
                cv2.resize(result.anomaly_map, side, interpolation=cv2.INTER_LINEAR).astype(np.float32)
            )
        progress("test", index + 1, len(dataset.test), float("nan"))

    images = detection(np.array([bool(entry.defect) for entry in dataset.test]), np.array(scores))
    pixels, overlap, binned = None, None, None
    if any(mask.any() for mask in masks):
        pixels, overlap = localisation(masks, maps)
        binned = aupro_binned(masks, maps)
    return Figures(
        image_auroc=images.auroc,
        image_ap=images.ap,
        image_max_f1=images.max_f1,
        pixel_auroc=pixels.auroc if pixels else None,
        pixel_ap=pixels.ap if pixels else None,
        pixel_max_f1=pixels.max_f1 if pixels else None,
        aupro=overlap,
        aupro_binned=binned,
        ms_per_image=float(np.median(elapsed_ms)),
    )


def _mask(path: Path | None, defective: bool) -> NDArray[np.bool_] | None:
    """Ground truth at METRIC_SIDE_PX; None where a defective image has none or an empty one: unknown."""
    if not defective:
        return np.zeros((METRIC_SIDE_PX, METRIC_SIDE_PX), np.bool_)
    if path is None:
        return None
    full = load_mask(path)
    if not full.any():
        return None
    share = cv2.resize(
        full.astype(np.float32), (METRIC_SIDE_PX, METRIC_SIDE_PX), interpolation=cv2.INTER_AREA
    )
    small = share >= min(0.5, float(share.max()))  # a hairline defect keeps its strongest pixels
    return np.asarray(small, np.bool_)
