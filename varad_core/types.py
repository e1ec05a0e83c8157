"""What the detector returns, and the error tree of this room.

VaradError
|-- DataError      an image or folder cannot be used; names the path and what to do
|-- WeightsError   a tokenizer's weights are missing or do not fit
`-- BundleError    a model file is damaged, unsigned, signed by a stranger, or newer than this program
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


class VaradError(Exception):
    """Any failure of the detector's library; the message is one line and says what to do."""


class DataError(VaradError):
    """An image or an image folder cannot be used."""


class WeightsError(VaradError):
    """A tokenizer's weights are missing or do not fit its architecture."""


class BundleError(VaradError):
    """A model bundle is damaged, not signed by a trusted key, or too new."""


def one_line(error: BaseException) -> str:
    """Another library's message, fit to stand within one of ours."""
    return " ".join(str(error).split())[:160]


@dataclass(frozen=True, slots=True)
class Limits:
    """Score limits, from good parts alone: score <= recheck passes, <= reject is rechecked, above rejected.

    Attributes:
        recheck: below or at it a part passes. Equal to `reject` where there is no recheck band.
        reject: above it a part is rejected.
        false_reject_bound: with `confidence`, at most this share of good parts scores above `reject`.
        confidence: of the bound, e.g. 0.95 (distribution-free, from held-out good parts).
    """

    recheck: float
    reject: float
    false_reject_bound: float
    confidence: float

    def __post_init__(self) -> None:
        if not self.recheck <= self.reject:
            raise ValueError(f"recheck limit {self.recheck} must not exceed reject limit {self.reject}")


@dataclass(frozen=True, slots=True, eq=False)
class AnomalyResult:
    """One image's inspection.

    Attributes:
        score: raw image score, never clipped.
        anomaly_map: float32 (h, w) at the model's own size, covering the whole input image; the same unit as
            `score`, so one fixed scale (the limit) colours every part's map.
        timings_ms: stage -> milliseconds (align, tokenize, predict, score).
        conditions: how the picture was taken, see `conditions.departures`; empty where the model knows none.
    """

    score: float
    anomaly_map: NDArray[np.float32]
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    conditions: Mapping[str, tuple[float, float]] = field(default_factory=dict)
