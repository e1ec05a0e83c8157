"""Train on a set's good parts, test on the rest: the figures of a benchmark row."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from varad_core.config import VaradConfig
from varad_core.data import ImageFiles, good_parts, labelled_images, load_image, load_mask
from varad_core.inspector import Inspector
from varad_core.metrics import aupro, auroc, average_precision, max_f1
from varad_core.train import Progress, train

METRIC_SIDE_PX = 256  # maps and masks are compared at this size, as most published figures are


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one set; the pixel figures are None without masks."""

    image_auroc: float
    image_ap: float
    pixel_auroc: float | None
    pixel_ap: float | None
    pixel_max_f1: float | None
    aupro: float | None
    ms_per_image: float
    fit_s: float
    parameters: int

    def to_dict(self) -> dict[str, float | int | None]:
        """JSON values."""
        return asdict(self)


def evaluate(
    data: Path,
    config: VaradConfig,
    *,
    weights: Path | None,
    limit_train: int,
    progress: Progress,
    device: str = "cpu",
) -> tuple[Evaluation, Inspector]:
    """Train on DATA/train/good, test on DATA/test.

    Args:
        data: a set in the layout of `varad_core.data`.
        config: what to train.
        weights: the tokenizer's.
        limit_train: at most so many training images, evenly spread; 0 = all.
        progress: see `train`.
        device: see `train`.

    Raises:
        DataError: the set cannot be used.
        WeightsError: see `create_tokenizer`.
    """
    tests = labelled_images(data)
    good: Sequence[NDArray[np.uint8]] = good_parts(data / "train" / "good")
    if 0 < limit_train < len(good):
        assert isinstance(good, ImageFiles)
        chosen = np.linspace(0, len(good) - 1, limit_train).round().astype(int)
        good = ImageFiles([good.paths[i] for i in chosen])
    inspector = train(good, config, name=data.name, weights=weights, progress=progress, device=device)
    inspector.warm_up()

    scores, maps, masks, elapsed_ms = [], [], [], []
    for index, entry in enumerate(tests):
        image_rgb = load_image(entry.path)
        begun = time.perf_counter_ns()
        result = inspector.inspect(image_rgb)
        elapsed_ms.append((time.perf_counter_ns() - begun) / 1e6)
        scores.append(result.score)
        mask = _mask(entry.mask_path, bool(entry.defect))
        if mask is not None:
            masks.append(mask)
            maps.append(
                cv2.resize(
                    result.anomaly_map, (METRIC_SIDE_PX, METRIC_SIDE_PX), interpolation=cv2.INTER_LINEAR
                )
            )
        progress("test", index + 1, len(tests), float("nan"))

    labels = np.array([bool(entry.defect) for entry in tests])
    image_scores = np.array(scores)
    pixels: tuple[float | None, float | None, float | None, float | None] = (None, None, None, None)
    if any(mask.any() for mask in masks):
        truth = np.stack(masks).ravel()
        flat = np.stack(maps).astype(np.float32).ravel()
        pixels = auroc(truth, flat), average_precision(truth, flat), max_f1(truth, flat), aupro(masks, maps)
    provenance = inspector.provenance
    figures = Evaluation(
        auroc(labels, image_scores),
        average_precision(labels, image_scores),
        *pixels,
        ms_per_image=float(np.median(elapsed_ms)),
        fit_s=float(provenance["fit_s"]),
        parameters=int(provenance["parameters"]),
    )
    return figures, inspector


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
