"""Detection and localisation metrics. Scores: larger is more anomalous; labels, masks: True is defective."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64] | NDArray[np.float32]

AUPRO_FPR_LIMIT = 0.3
AUPRO_BINS = 4096


def auroc(labels: Bools, scores: Floats) -> float:
    """Area under the ROC curve; ties count half. ValueError when only one class is present."""
    _need_both(labels)
    return float(roc_auc_score(labels, scores))


def average_precision(labels: Bools, scores: Floats) -> float:
    """Area under the precision-recall steps. ValueError when only one class is present."""
    _need_both(labels)
    return float(average_precision_score(labels, scores))


def max_f1(labels: Bools, scores: Floats) -> float:
    """The best F1 over all thresholds. ValueError when only one class is present."""
    _need_both(labels)
    precision, recall, _ = precision_recall_curve(labels, scores)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


def aupro(masks: Sequence[Bools], maps: Sequence[Floats], fpr_limit: float = AUPRO_FPR_LIMIT) -> float:
    """Area under the per-region overlap curve up to a false positive rate, over that rate (0 to 1).

    Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021. Every 8-connected region of every mask
    weighs the same. Thresholds are AUPRO_BINS quantiles of the normal pixels, so the curve is sampled evenly
    where it is integrated; the last step is cut at `fpr_limit` by interpolation.

    Args:
        masks: bool (H, W) each; good images have none set.
        maps: (H, W) each.
        fpr_limit: where integration stops.

    Raises:
        ValueError: there is no defective or no normal pixel.
    """
    normal = np.concatenate([one[~mask] for mask, one in zip(masks, maps, strict=True)])
    if not normal.size:
        raise ValueError("aupro needs normal pixels")
    rates = np.linspace(0, min(1.0, fpr_limit * 1.05), AUPRO_BINS)
    thresholds = np.quantile(normal, 1 - rates)[::-1]  # ascending
    thresholds[-1] = np.nextafter(normal.max(), np.inf)  # no normal pixel passes: the curve starts at rate 0
    overlaps = []
    for mask, one in zip(masks, maps, strict=True):
        if not mask.any():
            continue
        count, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        for region in range(1, count):
            values = np.sort(one[regions == region])
            overlaps.append(1 - np.searchsorted(values, thresholds, side="left") / len(values))
    if not overlaps:
        raise ValueError("aupro needs at least one defective region")
    pro = np.mean(overlaps, axis=0)[::-1]
    normal = np.sort(normal)
    fpr = 1 - np.searchsorted(normal, thresholds, side="left")[::-1] / len(normal)
    inside = fpr <= fpr_limit
    at_limit = float(np.interp(fpr_limit, fpr, pro))
    x, y = np.append(fpr[inside], fpr_limit), np.append(pro[inside], at_limit)
    return float(np.trapezoid(y, x) / fpr_limit)


def _need_both(labels: Bools) -> None:
    if labels.all() or not labels.any():
        raise ValueError(
            f"need good and defective samples (got {int(labels.sum())} defective of {labels.size})"
        )
