"""Whether a model that was loaded can judge at all. A signature says who made it, not that it is whole."""

import math
from typing import TYPE_CHECKING

import numpy as np

from varad_core.types import BundleError

if TYPE_CHECKING:
    from station.worker import Detector
    from varad_core.inspector import Inspector


def require_finite_weights(inspector: "Inspector") -> None:
    """Every number of the model is one: a single NaN may show in few pictures, or in none but the bad ones.

    Raises:
        BundleError: it is not.
    """
    import torch

    parts = {
        "tokenizer": inspector.tokenizer.state_dict(),
        "model": inspector.model.state_dict(),
        "scoring": inspector.scoring.tensors(),
        "alignment": inspector.alignment.tensors(),
    }
    for part, tensors in parts.items():
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise BundleError(
                    f"model {inspector.model_name} {inspector.model_id}: {part}.{name} holds values that are "
                    "no finite numbers; train again"
                )


def require_finite_score(detector: "Detector") -> None:
    """An empty picture gets a score and a map of finite numbers.

    Raises:
        BundleError: it does not.
    """
    result = detector.inspect(np.zeros((64, 64, 3), np.uint8))
    if not (math.isfinite(result.score) and np.isfinite(result.anomaly_map).all()):
        raise BundleError(
            f"model {detector.model_name} {detector.model_id}: the score of an empty picture is no finite "
            f"number (got {result.score}); train again"
        )
