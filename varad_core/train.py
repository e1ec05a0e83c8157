"""Training: split, align, tokenize once, one loop, then calibrate on the good parts the loop never saw."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from varad_core.alignment import Alignment, fit_alignment
from varad_core.augmentation import Varied
from varad_core.config import TrainingConfig, VaradConfig
from varad_core.data import MIN_GOOD_PARTS, images_hash
from varad_core.inspector import Inspector, keep_large_buffers
from varad_core.limits import fit_limits, held_out_parts, require_parts
from varad_core.model import GridShape, Prediction, StationVarAD, VarAD, create_model
from varad_core.scoring import CosineScoring, Scoring, fit_gaussian_scoring
from varad_core.tiling import Framing
from varad_core.tokenizer import Tokenizer, create_tokenizer, to_tensor
from varad_core.types import DataError, Limits, VaradError

ImageRgb = NDArray[np.uint8]
Progress = Callable[[str, int, int, float], None]  # stage, done, total, loss (nan where there is none)
ALIGNMENT_SAMPLE = 200
MAX_TILES = 600  # drawn to fit the predictor, and as many to fit the scoring: their tokens are held in memory
NO_LIMITS = Limits(0.0, 0.0, 1.0, 0.0)


class Cancelled(VaradError):
    """Training was cancelled; nothing was written."""


def _quiet(stage: str, done: int, total: int, loss: float) -> None:
    pass


def train(
    images: Sequence[ImageRgb],
    config: VaradConfig,
    *,
    name: str,
    weights: Path | None = None,
    progress: Progress = _quiet,
    cancel: Event | None = None,
    device: str = "cpu",
) -> Inspector:
    """Train a model on good parts.

    Args:
        images: uint8 (H, W, 3) each, sizes may differ.
        config: what to train.
        name: the recipe, kept with the model.
        weights: the tokenizer's local weights.
        progress: called after each image or step.
        cancel: set it from another thread to stop.
        device: of the predictor and the tokenizer.

    Returns:
        A calibrated inspector with limits; `Inspector.save` writes it.

    Raises:
        DataError: fewer than MIN_GOOD_PARTS images, too few for the bound asked for, or one cannot be used.
        WeightsError: see `create_tokenizer`.
        Cancelled: `cancel` was set.
    """
    if len(images) < MIN_GOOD_PARTS:
        raise DataError(f"training needs at least {MIN_GOOD_PARTS} good parts (got {len(images)})")
    require_parts(len(images), config.training)
    keep_large_buffers()
    started = time.monotonic()
    cancel = cancel or Event()
    settings = config.training
    torch.manual_seed(settings.seed)
    fitted, held_out = split(len(images), settings)

    tokenizer = create_tokenizer(config.tokenizer, config.image_size_px, weights).eval().to(device)
    sample = [images[i] for i in fitted[:ALIGNMENT_SAMPLE]]
    alignment = fit_alignment(config.alignment, sample)
    framing = Framing(config)
    copies = 1 + settings.variants
    counts = np.ones(len(images), np.int64)  # inputs drawn from each image and each of its copies
    if config.framing == "tiles":
        counts[fitted], counts[held_out] = (
            max(1, MAX_TILES // (copies * len(part))) for part in (fitted, held_out)
        )
    rng = np.random.default_rng(settings.seed)
    varied, counts = Varied(images, settings.variants, settings.seed), np.tile(counts, copies)
    tokens, owners = tokenize(varied, counts, framing, alignment, tokenizer, rng, device, progress, cancel)
    owners %= len(images)
    fitted_rows, held_out_rows = (np.flatnonzero(np.isin(owners, part)) for part in (fitted, held_out))
    shapes: list[GridShape] = [(grid.shape[1], grid.shape[2], grid.shape[3]) for grid in tokens]
    model = create_model(config, shapes).to(device)
    model.fit_tokens([grid[fitted_rows] for grid in tokens])
    prepared = model.prepare(tokens)
    del tokens  # hundreds of megabytes, and `prepared` has all that is needed of them

    final_loss = fit_model(model, [grid[fitted_rows] for grid in prepared], settings, progress, cancel)
    prepared = [grid[held_out_rows] for grid in prepared]
    scoring, scores = calibrate(model, prepared, config)
    if config.framing == "tiles" or settings.variants:

        def inspector_of(scoring: Scoring) -> Inspector:
            return Inspector(config, alignment, tokenizer, model, scoring, NO_LIMITS, {}, device)

        scores = score_whole(
            inspector_of, model, prepared, owners[held_out_rows], images, config, progress, cancel
        )
    if not np.isfinite(scores).all():
        raise DataError(
            f"training: {name}'s pictures are too much alike to calibrate on (scores that are not finite); "
            "check that they are different pictures of good parts"
        )
    limits = fit_limits(scores, settings.false_reject_target, settings.confidence, settings.recheck_quantile)
    provenance = {
        "name": name,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "training_sha256": images_hash(images),
        "good_parts": len(images),
        "fitted_parts": len(fitted),
        "held_out_parts": len(held_out),
        "fitted_inputs": len(fitted_rows),
        "seed": settings.seed,
        "final_loss": final_loss,
        "fit_s": time.monotonic() - started,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "shapes": shapes,
    }
    return Inspector(config, alignment, tokenizer, model, scoring, limits, provenance, device)


def split(n: int, settings: TrainingConfig) -> tuple[list[int], list[int]]:
    """Seeded split of n parts into those the loop sees and those held out for calibration and limits."""
    order = np.random.default_rng(settings.seed).permutation(n).tolist()
    held_out = held_out_parts(n, settings)
    return sorted(order[held_out:]), sorted(order[:held_out])


@torch.no_grad()
def tokenize(
    images: Sequence[ImageRgb],
    counts: NDArray[np.int64],
    framing: Framing,
    alignment: Alignment,
    tokenizer: Tokenizer,
    rng: np.random.Generator,
    device: str,
    progress: Progress,
    cancel: Event,
) -> tuple[list[Tensor], NDArray[np.int64]]:
    """The hierarchies of `counts[i]` inputs of image i, once: the tokenizer is frozen.

    Returns:
        A list of (n, C_i, H_i, W_i), and the image that each of the n is from.
    """
    hierarchies: list[list[Tensor]] = []
    owners: list[int] = []
    for index, image_rgb in enumerate(images):
        _check(cancel)
        aligned = framing.align(alignment, image_rgb)
        for tiles_rgb in framing.samples(aligned.image_rgb, int(counts[index]), rng):
            hierarchies.append(tokenizer(to_tensor(tiles_rgb).to(device)))
            owners += [index] * len(tiles_rgb)
        progress("tokenize", index + 1, len(images), math.nan)
    return [torch.cat(grids) for grids in zip(*hierarchies, strict=True)], np.array(owners)


def fit_model(
    model: VarAD, prepared: Sequence[Tensor], settings: TrainingConfig, progress: Progress, cancel: Event
) -> float:
    """The loop. Returns the mean loss of its last tenth.

    AdamW with a one-cycle rate; with `minutes` the cycle follows the clock, so a slow machine trains less,
    not wrongly.
    """
    betas = (0.9, 0.99) if isinstance(model, StationVarAD) else (0.5, 0.999)  # the paper's
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=betas, weight_decay=0.01
    )
    generator = torch.Generator().manual_seed(settings.seed)
    n, batch_size = len(prepared[0]), min(settings.batch_size, len(prepared[0]))
    losses: list[float] = []
    queue: list[int] = []
    begun = time.monotonic()
    model.train()
    step, done = 0, 0.0
    while done < 1:
        _check(cancel)
        while len(queue) < batch_size:
            queue += torch.randperm(n, generator=generator).tolist()
        batch, queue = queue[:batch_size], queue[batch_size:]
        for group in optimizer.param_groups:
            group["lr"] = (
                settings.learning_rate * min(1.0, 20 * done + 0.05) * 0.5 * (1 + math.cos(math.pi * done))
            )
        loss = model.loss([grid[batch] for grid in prepared])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        step += 1
        by_steps = step / settings.steps if settings.steps else 0.0
        by_clock = (time.monotonic() - begun) / (60 * settings.minutes) if settings.minutes else 0.0
        done = max(by_steps, by_clock)
        progress("train", round(1000 * min(done, 1.0)), 1000, losses[-1])
    model.eval()
    return float(np.mean(losses[-max(1, len(losses) // 10) :]))


@torch.no_grad()
def predict_all(model: VarAD, prepared: Sequence[Tensor], batch_size: int = 8) -> list[Prediction]:
    """Predictions of every image, joined per hierarchy."""
    parts = [
        model.predict([grid[start : start + batch_size] for grid in prepared])
        for start in range(0, len(prepared[0]), batch_size)
    ]
    return [
        (torch.cat([p[i][0] for p in parts]).cpu(), torch.cat([p[i][1] for p in parts]).cpu())
        for i in range(len(parts[0]))
    ]


@torch.no_grad()
def calibrate(
    model: VarAD, held_out: Sequence[Tensor], config: VaradConfig
) -> tuple[Scoring, NDArray[np.float64]]:
    """The scoring, and the scores of the held-out parts for the limits."""
    predictions = predict_all(model, held_out)
    if isinstance(model, StationVarAD):
        ((predicted, target),) = predictions
        gaussian, scores = fit_gaussian_scoring(predicted, target, config.scoring, config.training.seed)
        return gaussian, scores.double().numpy()
    cosine = CosineScoring(config.image_size_px)
    return cosine, cosine.scores(cosine.maps(predictions)).double().numpy()


def score_whole(
    inspector_of: Callable[[Scoring], Inspector],
    model: VarAD,
    held_out: Sequence[Tensor],
    owners: NDArray[np.int64],
    images: Sequence[ImageRgb],
    config: VaradConfig,
    progress: Progress,
    cancel: Event,
) -> NDArray[np.float64]:
    """Scores of the held-out images for the limits, each inspected whole, as in production.

    The scoring of one half of the images is fitted on the inputs of the other: tiles of one image overlap,
    and its varied copies resemble each other, so it is images that are kept apart.

    Args:
        inspector_of: an inspector with this scoring.
        model: the fitted predictor.
        held_out: prepared inputs, (n, C_i, H_i, W_i) each.
        owners: (n,), the image each input is from.
        images: what `owners` counts.
        config: see `train`.
        progress: see `train`.
        cancel: see `train`.
    """
    parts = np.unique(owners)
    scores: list[float] = []
    for half, other in ((parts[::2], parts[1::2]), (parts[1::2], parts[::2])):
        rows = np.flatnonzero(np.isin(owners, other))
        scoring, _ = calibrate(model, [grid[rows] for grid in held_out], config)
        inspector = inspector_of(scoring)
        for index in half.tolist():
            _check(cancel)
            scores.append(inspector.inspect(images[index]).score)
            progress("calibrate", len(scores), len(parts), math.nan)
    return np.array(scores)


def _check(cancel: Event) -> None:
    if cancel.is_set():
        raise Cancelled("training cancelled; nothing was written")


def describe(inspector: Inspector) -> dict[str, object]:
    """Facts of a training run, for a card or a log."""
    return {**inspector.provenance, "limits": asdict(inspector.limits), "alignment": inspector.alignment.name}
