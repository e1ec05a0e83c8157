"""What else tokens could be judged by, the same tokens and calibrated alike: a plain memory bank of them, a
bank of residuals, Gaussians of tokens instead of residuals.

The library keeps the conditional Gaussians of the residuals; these are their twins in the ablation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from varad_core import scoring
from varad_core.config import ScoringConfig
from varad_core.model import Prediction
from varad_core.scoring import GaussianScoring

BANK_TOKENS = 4_000  # of the 60 000 that the Gaussians come from
AT_ONCE = 4_096  # tokens whose distances to the whole bank are held

_fit_gaussians = scoring._fit_gaussians


class TokenGaussians(GaussianScoring):
    """A Gaussian of the tokens themselves for each cluster of the predicted token: no residual is taken."""

    def distances(self, predictions: Sequence[Prediction]) -> Tensor:
        ((predicted, target),) = predictions
        return super().distances([(predicted, target + predicted)])

    @staticmethod
    def fit(p: Tensor, r: Tensor, centres: Tensor, config: ScoringConfig) -> dict[str, Tensor]:
        return _fit_gaussians(p, r + p, centres, config)


class ResidualBank(GaussianScoring):
    """The distance to the nearest good residual, where residuals have unit covariance."""

    NAMES = ("whiten_mean", "whiten", "bank", "location", "spread")  # type: ignore[assignment]

    def to(self, device: torch.device) -> GaussianScoring:
        self.values = {name: value.to(device) for name, value in self.values.items()}
        return self

    def distances(self, predictions: Sequence[Prediction]) -> Tensor:
        ((predicted, target),) = predictions
        B, C, H, W = target.shape
        rows = self.judged(predicted, target).permute(0, 2, 3, 1).reshape(-1, C)
        white, bank = (rows - self.values["whiten_mean"]) @ self.values["whiten"], self.values["bank"]
        squared = torch.cat([torch.cdist(some, bank).amin(1).square() for some in white.split(AT_ONCE)])
        return (squared / C).sqrt().view(B, H, W)

    @staticmethod
    def judged(predicted: Tensor, target: Tensor) -> Tensor:
        return target - predicted

    @staticmethod
    def fit(p: Tensor, r: Tensor, centres: Tensor, config: ScoringConfig) -> dict[str, Tensor]:
        gaussian = _fit_gaussians(p, r, centres[:1], config)
        drawn = torch.from_numpy(np.random.default_rng(0).permutation(len(r))[:BANK_TOKENS])
        whitening = {name: gaussian[name] for name in ("whiten_mean", "whiten")}
        return {**whitening, "bank": (r[drawn] - whitening["whiten_mean"]) @ whitening["whiten"]}


class TokenBank(ResidualBank):
    """The same of the tokens: what the predictor says counts for nothing."""

    @staticmethod
    def judged(predicted: Tensor, target: Tensor) -> Tensor:
        return target

    @staticmethod
    def fit(p: Tensor, r: Tensor, centres: Tensor, config: ScoringConfig) -> dict[str, Tensor]:
        return ResidualBank.fit(p, r + p, centres, config)


def judged_by(twin: type[TokenGaussians] | type[ResidualBank]) -> Callable[[], AbstractContextManager[None]]:
    """A context in which training fits this scoring in the Gaussians' place."""

    @contextmanager
    def patched() -> Iterator[None]:
        with (
            patch.object(scoring, "GaussianScoring", twin),
            patch.object(scoring, "_fit_gaussians", twin.fit),
        ):
            yield

    return patched
