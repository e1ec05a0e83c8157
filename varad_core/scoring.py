"""From predictions to a map and a score.

`CosineScoring` is the paper's: 1 - cosine, smoothed, maximum. `GaussianScoring` is the station's: how
improbable the residual is, given what was predicted, judged on good parts that training did not see. Its unit
is the standard deviation of good tokens, so maps and scores of different parts of the image compare.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from varad_core.config import ScoringConfig
from varad_core.ignoring import Mask, counting_each
from varad_core.model import Prediction

PAPER_SIGMA_PX = 4.0
PAPER_STEP_PX = 4  # the paper's map is kept at 1/4 of the image, its sigma likewise
CLUSTER_SAMPLE = 20_000
ALIKE = 10  # neighbouring tokens of one part resemble each other: so many tell as much as one by itself
GAUSSIAN_SAMPLE = 60_000  # tokens of all parts together: enough for a few hundred channels
MOST_VARIANCE = 300.0  # of a cluster along a direction; beyond, half precision of directions tells
POSITION_PRIOR = 8.0  # parts' worth of belief in the whole image's mean and spread at each position


class Scoring(Protocol):
    """Turns predictions into canonical maps and maps into scores."""

    def maps(self, predictions: Sequence[Prediction]) -> Tensor:
        """Predictions of a batch -> (B, h, w), larger where less like a good part."""
        ...

    def scores(self, maps: Tensor, input_cells: int = 0) -> Tensor:
        """(B, h, w) -> (B,). `input_cells`: of one model input's map, where a picture is made of several."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What a bundle stores."""
        ...


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian filter with replicated borders, (B, h, w)."""
    reach = max(1, math.ceil(3 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=maps.device) / sigma) ** 2)
    line = line / line.sum()
    padded = F.pad(maps[:, None], [reach] * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))[:, 0]


class CosineScoring:
    """The paper's map and score; needs no fitting. `map_px` is a quarter of the image's side."""

    def __init__(self, image_size_px: int) -> None:
        self.map_px = max(16, image_size_px // PAPER_STEP_PX)

    def maps(self, predictions: Sequence[Prediction]) -> Tensor:
        """See `Scoring.maps`: 1 - cosine per hierarchy, bilinear, mean over hierarchies, Gaussian."""
        layers = [
            F.interpolate(
                (1 - F.cosine_similarity(predicted, target, dim=1))[:, None],
                size=(self.map_px, self.map_px),
                mode="bilinear",
                align_corners=True,
            )[:, 0]
            for predicted, target in predictions
        ]
        return smooth(torch.stack(layers).mean(0), PAPER_SIGMA_PX / PAPER_STEP_PX)

    def scores(self, maps: Tensor, input_cells: int = 0) -> Tensor:
        """The maximum."""
        return maps.flatten(1).amax(1)

    def tensors(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


class GaussianScoring:
    """Conditional Gaussians of the residual, one per cluster of the predicted token, then statistics per
    position.

    In coordinates where the residuals of all tokens have unit covariance, cluster k keeps its mean and the
    few directions in which its own (shrunken) covariance differs most from the common one:

        d^2 = |r - mean_k|^2 + sum_j (1 / variance_kj - 1) ((r - mean_k) . direction_kj)^2
    """

    NAMES = ("whiten_mean", "whiten", "centres", "means", "directions", "gains", "location", "spread")

    def __init__(self, config: ScoringConfig, tensors: Mapping[str, Tensor]) -> None:
        self.config = config
        # Of one layout, so that a model that was stored scores as before to the last bit.
        self.values = {name: tensors[name].float().contiguous() for name in self.NAMES}

    def tensors(self) -> dict[str, Tensor]:
        """What a bundle stores; the large ones in half precision (they are rounded to it when fitted)."""
        half = ("whiten", "directions", "means", "centres")
        return {name: value.half() if name in half else value for name, value in self.values.items()}

    def to(self, device: torch.device) -> "GaussianScoring":
        """Move the statistics. Raises RuntimeError where they are none of good parts."""
        _ = self._forms
        self.values = {name: value.to(device) for name, value in self.values.items()}
        return self

    def distances(self, predictions: Sequence[Prediction]) -> Tensor:
        """Mahalanobis distance over the root of the token's width, (B, H, W): about 1 on good tokens."""
        ((predicted, target),) = predictions
        B, C, H, W = target.shape
        p = predicted.permute(0, 2, 3, 1).reshape(-1, C)
        r = target.permute(0, 2, 3, 1).reshape(-1, C) - p
        centres = self.values["centres"]
        nearest = (centres.square().sum(1) - p @ (2 * centres).t()).argmin(1)
        squared = (self.squared_by_cluster if r.device.type == "cpu" else self.squared_together)(r, nearest)
        return (squared.clamp_min(0) / C).sqrt().view(B, H, W)

    def squared_together(self, r: Tensor, nearest: Tensor) -> Tensor:
        """d^2 of residuals (n, C) under their clusters (n,): (n,).

        As a GPU likes it: every cluster's directions are multiplied out and the own ones picked, the same
        work for every part, and nothing that the CPU would have to wait for.
        """
        v = self.values
        K, rank, _ = v["directions"].shape
        r = (r - v["whiten_mean"]) @ v["whiten"]
        towards = (r @ v["means"].t()).gather(1, nearest[:, None])[:, 0]  # r . mean_k
        squared = r.square().sum(1) - 2 * towards + v["means"].square().sum(1)[nearest]
        every = (r @ v["directions"].flatten(0, 1).t()).view(-1, K, rank)
        along = every.gather(1, nearest[:, None, None].expand(-1, 1, rank))[:, 0]
        along = along - torch.einsum("krc,kc->kr", v["directions"], v["means"])[nearest]
        return squared + (along.square() * v["gains"][nearest]).sum(1)

    def squared_by_cluster(self, r: Tensor, nearest: Tensor) -> Tensor:
        """The same as a CPU likes it: each cluster's tokens by themselves, and one product for all of it."""
        forms, shifts = self._forms
        order = nearest.argsort()
        own = r[order].split(nearest.bincount(minlength=len(forms)).tolist())
        squared = torch.cat(
            [
                torch.addmm(shift, rows, form).square_().sum(1)
                for rows, form, shift in zip(own, forms, shifts, strict=True)
            ]
        )
        return torch.empty_like(squared).index_copy_(0, order, squared)

    @functools.cached_property
    def _forms(self) -> tuple[Tensor, Tensor]:
        """Matrices and vectors with d^2 = |r form_k + shift_k|^2: (K, C, C), (K, C).

        Behind the whitening comes the Cholesky factor of 1 + sum_j (1 / variance_j - 1) direction_j
        direction_j^T.
        """
        v = self.values
        scaled = v["directions"] * v["gains"][:, :, None]
        form = torch.eye(len(v["whiten_mean"])) + v["directions"].transpose(1, 2) @ scaled
        factor = torch.linalg.cholesky(form)
        shift = -(v["whiten_mean"] @ v["whiten"] + v["means"])
        return v["whiten"] @ factor, (shift[:, None] @ factor)[:, 0]

    def maps(self, predictions: Sequence[Prediction]) -> Tensor:
        """See `Scoring.maps`."""
        return self.standardise(self.distances(predictions))

    def standardise(self, distances: Tensor) -> Tensor:
        """Distances (B, H, W) -> standard deviations above usual, smoothed."""
        z = (distances - self.values["location"]) / self.values["spread"]
        return smooth(z, self.config.smoothing)

    def scores(self, maps: Tensor, input_cells: int = 0) -> Tensor:
        """Mean of the highest cells, `top_share` of one model input's: a long strip dilutes no defect."""
        flat = maps.flatten(1)
        count = max(1, round(self.config.top_share * (input_cells or flat.shape[1])))
        return flat.topk(min(count, flat.shape[1]), dim=1).values.mean(1)


def fit_gaussian_scoring(
    predicted: Tensor,
    target: Tensor,
    held_out: Tensor,
    config: ScoringConfig,
    seed: int,
    ignored: Mask | None = None,
    folds: int = 5,
) -> tuple[GaussianScoring, Tensor]:
    """Fit on good parts, and score each held-out one nearly as if it had not been there.

    In each fold the Gaussians come from the parts the loop was fitted on and from the other held-out parts.
    The distances so found give the position statistics (the parts' distances to Gaussians they shaped
    themselves would be too small) and, each fold standardised by the others', the scores for the limits.
    The clusters' centres come from all parts, and the final scorer from more parts than a fold's: a bound
    read from these scores is close to distribution-free, not exactly so.

    Args:
        predicted: (n, C, H, W).
        target: (n, C, H, W).
        held_out: (n,) bool: parts that the predictor was not fitted on.
        config: clusters, rank, prior.
        seed: of the clusters and of the tokens that are used.
        ignored: where nothing counts for the scores, the same in every part.
        folds: at most as many as there are held-out parts.

    Returns:
        The scoring fitted on all parts, and the held-out scores.
    """
    n, C, H, W = target.shape
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n * H * W)[:GAUSSIAN_SAMPLE])
    part = order // (H * W)  # of each token used
    p, t = (_tokens(grids).reshape(-1, C)[order] for grids in (predicted, target))
    centres = _cluster(p, config, seed)
    rows = held_out.nonzero()[:, 0]
    folds = min(folds, len(rows))
    fold_of = torch.full((n,), -1)
    fold_of[rows] = torch.arange(len(rows)) % folds
    blank = {"location": torch.zeros(()), "spread": torch.ones(())}
    distances = torch.empty(len(rows), H, W)
    for fold in range(folds):
        others, inside = fold_of[part] != fold, fold_of[rows] == fold
        gaussians = _fit_gaussians(p[others], (t - p)[others], centres, config)
        scoring = GaussianScoring(config, {**gaussians, **blank})
        distances[inside] = torch.cat(
            [scoring.distances([(predicted[i : i + 1], target[i : i + 1])]) for i in rows[inside].tolist()]
        )

    gaussians = _fit_gaussians(p, t - p, centres, config)
    scores = torch.empty(len(rows))
    for fold in range(folds):
        inside = fold_of[rows] == fold
        scoring = GaussianScoring(
            config, {**gaussians, **fit_positions(distances[~inside], config.smoothing)}
        )
        scores[inside] = scoring.scores(counting_each(scoring.standardise(distances[inside]), ignored))
    return GaussianScoring(config, {**gaussians, **fit_positions(distances, config.smoothing)}), scores


def _tokens(grids: Tensor) -> Tensor:
    """(n, C, H, W) -> (n, L, C)."""
    return grids.flatten(2).transpose(1, 2)


def _cluster(p: Tensor, config: ScoringConfig, seed: int) -> Tensor:
    """Centres of the predicted tokens (m, C): (K, C), fewer than asked for where there are few tokens."""
    from sklearn.cluster import KMeans  # slow to import, and inspecting needs none of it

    count = max(1, min(config.clusters, len(p) // 64))
    sample = np.random.default_rng(seed).permutation(len(p))[:CLUSTER_SAMPLE]
    clusters = KMeans(count, n_init=1, max_iter=30, random_state=seed).fit(
        p[torch.from_numpy(sample)].numpy()
    )
    return torch.from_numpy(clusters.cluster_centers_).half().float()


def _fit_gaussians(p: Tensor, r: Tensor, centres: Tensor, config: ScoringConfig) -> dict[str, Tensor]:
    """Predicted tokens, residuals (m, C) -> `GaussianScoring`'s tensors without position statistics."""
    m, C = r.shape
    whiten_mean = r.mean(0)
    centred = r - whiten_mean
    covariance = (centred.t() @ centred).double() / max(1, m - 1)
    shrink = C / (C + m / ALIKE)  # towards a sphere, the more so the fewer tokens there are
    covariance = (1 - shrink) * covariance + shrink * covariance.diagonal().mean() * torch.eye(C)
    values, vectors = torch.linalg.eigh(covariance)
    whiten = (vectors * values.clamp_min(1e-3 * float(values.mean()) + 1e-12).rsqrt()).half().float()
    r = centred @ whiten

    K, rank = len(centres), min(config.rank, C)
    nearest = (centres.square().sum(1) - 2 * p @ centres.t()).argmin(1)
    means, directions, gains = torch.zeros(K, C), torch.zeros(K, rank, C), torch.zeros(K, rank)
    for k in range(K):
        rows = r[nearest == k]
        if len(rows) < 8:
            continue  # too few to say anything: the common Gaussian stands
        weight = len(rows) / (len(rows) + config.prior_weight)
        means[k] = (weight * rows.mean(0)).half().float()
        inner = rows - means[k]
        own = weight * (inner.t() @ inner) / len(rows) + (1 - weight) * torch.eye(C)
        variances, axes = torch.linalg.eigh(own)
        kept = (variances - variances.log()).argsort(descending=True)[
            :rank
        ]  # farthest from 1, as likelihood counts it
        directions[k] = axes[:, kept].t().half().float()
        gains[k] = 1 / variances[kept].clamp_max(MOST_VARIANCE) - 1
    return {
        "whiten_mean": whiten_mean, "whiten": whiten, "centres": centres, "means": means, "directions":
        directions, "gains": gains,
    }  # fmt: skip


def fit_positions(distances: Tensor, smoothing: float) -> dict[str, Tensor]:
    """Mean and spread of good distances: per position where that predicts other good parts better, else one
    for all.

    Placed parts gain from statistics per position, moved ones lose; which case this is the parts themselves
    say: each is described by the statistics of the others' half, with and without positions, and the likelier
        account is kept.
    """
    even, odd = distances[::2], distances[1::2]
    if len(distances) >= 8:
        gain = sum(
            _log_likelihood(test, *_by_position(fit, smoothing)) - _log_likelihood(test, *_overall(fit))
            for fit, test in ((even, odd), (odd, even))
        )
        if gain > 0:
            location, spread = _by_position(distances, smoothing)
            return {"location": location, "spread": spread}
    location, spread = _overall(distances)
    return {"location": location, "spread": spread}


def _overall(distances: Tensor) -> tuple[Tensor, Tensor]:
    return distances.mean(), distances.std().clamp_min(1e-6)


def _by_position(distances: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Shrunk towards the whole image's by POSITION_PRIOR parts; neighbours share."""
    mean, spread = _overall(distances)
    weight = len(distances) / (len(distances) + POSITION_PRIOR)
    location = weight * smooth(distances.mean(0, keepdim=True), smoothing)[0] + (1 - weight) * mean
    variance = (distances - location).square().mean(0, keepdim=True)
    variance = weight * smooth(variance, smoothing)[0] + (1 - weight) * spread**2
    return location, variance.sqrt().clamp_min(1e-6)


def _log_likelihood(distances: Tensor, location: Tensor, spread: Tensor) -> float:
    z = (distances - location) / spread
    return float((-0.5 * z.square() - spread.log()).mean())
