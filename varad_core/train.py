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
from varad_core.config import TrainingConfig, VaradConfig
from varad_core.data import MIN_GOOD_PARTS, images_hash
from varad_core.inspector import Inspector, keep_large_buffers
from varad_core.limits import fit_limits, held_out_parts, require_parts
from varad_core.model import GridShape, Prediction, StationVarAD, VarAD, create_model
from varad_core.scoring import CosineScoring, Scoring, fit_gaussian_scoring
from varad_core.tokenizer import Tokenizer, create_tokenizer, to_tensor
from varad_core.types import DataError, VaradError

ImageRgb = NDArray[np.uint8]
Progress = Callable[[str, int, int, float], None]  # stage, done, total, loss (nan where there is none)
ALIGNMENT_SAMPLE = 200


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
    tokens = tokenize(images, alignment, tokenizer, config.image_size_px, device, progress, cancel)
    shapes: list[GridShape] = [(grid.shape[1], grid.shape[2], grid.shape[3]) for grid in tokens]
    model = create_model(config, shapes).to(device)
    model.fit_tokens([grid[fitted] for grid in tokens])
    prepared = model.prepare(tokens)
    del tokens  # hundreds of megabytes, and `prepared` has all that is needed of them

    final_loss = fit_model(model, [grid[fitted] for grid in prepared], settings, progress, cancel)
    scoring, scores = calibrate(model, [grid[held_out] for grid in prepared], config)
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
    alignment: Alignment,
    tokenizer: Tokenizer,
    size_px: int,
    device: str,
    progress: Progress,
    cancel: Event,
) -> list[Tensor]:
    """Every image's hierarchies, once: the tokenizer is frozen. A list of (n, C_i, H_i, W_i)."""
    hierarchies: list[list[Tensor]] = []
    for index, image_rgb in enumerate(images):
        _check(cancel)
        aligned = alignment.align(image_rgb, size_px)
        hierarchies.append(tokenizer(to_tensor(aligned.image_rgb[None]).to(device)))
        progress("tokenize", index + 1, len(images), math.nan)
    return [torch.cat(grids) for grids in zip(*hierarchies, strict=True)]


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


def _check(cancel: Event) -> None:
    if cancel.is_set():
        raise Cancelled("training cancelled; nothing was written")


def describe(inspector: Inspector) -> dict[str, object]:
    """Facts of a training run, for a card or a log."""
    return {**inspector.provenance, "limits": asdict(inspector.limits), "alignment": inspector.alignment.name}
