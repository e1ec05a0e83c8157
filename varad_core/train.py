"""Training: split, align, tokenize once, one loop, then calibrate on the good parts the loop never saw."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from varad_core.alignment import Alignment, fit_alignment
from varad_core.augmentation import Varied
from varad_core.conditions import measure, usual_conditions
from varad_core.config import TrainingConfig, VaradConfig
from varad_core.data import MIN_GOOD_PARTS, image_digests, images_hash
from varad_core.ignoring import Mask, PaintedOver, counting_each, following
from varad_core.inspector import Inspector, keep_large_buffers, usable_device
from varad_core.levelling import level, usual_brightness
from varad_core.limits import fit_limits, held_out_parts, require_parts
from varad_core.model import GridShape, Prediction, StationVarAD, VarAD, create_model
from varad_core.scoring import CosineScoring, Scoring, fit_gaussian_scoring
from varad_core.tiling import Framing, fit_framing
from varad_core.token_store import TokenStore
from varad_core.tokenizer import Tokenizer, create_tokenizer, to_tensor
from varad_core.types import DataError, Limits, VaradError

ImageRgb = NDArray[np.uint8]
Progress = Callable[[str, int, int, float], None]  # stage, done, total, loss (nan where there is none)
ALIGNMENT_SAMPLE = 200
MAX_TILES = 300  # drawn to fit the predictor, and as many to fit the scoring
WHITENING_SAMPLE = 100  # images and copies that the whitening is fitted on
FITTED_SAMPLE = 100  # inputs of the loop that help to shape the Gaussians
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
    ignored: Mask | None = None,
) -> Inspector:
    """Train a model on good parts.

    Args:
        images: uint8 (H, W, 3) each, sizes may differ.
        config: what to train.
        name: the recipe, kept with the model.
        weights: the tokenizer's local weights.
        progress: called after each image or step.
        cancel: set it from another thread to stop.
        device: of the predictor and the tokenizer; see `usable_device`.
        ignored: where nothing counts, drawn over the first image; see `ignoring.load_mask`.

    Returns:
        A calibrated inspector with limits; `Inspector.save` writes it.

    Raises:
        DataError: fewer than MIN_GOOD_PARTS images, too few for the bound asked for, or one cannot be used.
        WeightsError: see `create_tokenizer`.
        VaradError: see `usable_device`.
        Cancelled: `cancel` was set.
    """
    digests = different_parts(images)
    require_parts(len(images), config.training)
    device = usable_device(device)
    keep_large_buffers()
    started = time.monotonic()
    cancel = cancel or Event()
    settings = config.training
    torch.manual_seed(settings.seed)
    n = len(images)
    fitted, held_out = split(n, settings)
    tokenizer = create_tokenizer(config.tokenizer, config.image_size_px, weights).eval().to(device)
    seen = [images[i] for i in fitted[:ALIGNMENT_SAMPLE]]
    alignment = fit_alignment(config.alignment, seen)
    config = replace(config, framing=fit_framing(config.framing, alignment, seen))
    framing = Framing(config)
    if ignored is not None:
        alignment = following(alignment, ignored, framing.align(alignment, images[0]), framing.beside_px)
    light = None
    if config.level_light:
        light = usual_brightness(framing.align(alignment, image) for image in seen)
    del seen  # may be gigabytes
    varied = Varied(images, settings.variants, settings.seed)
    inputs = Inputs(varied, fitted, n, framing, alignment, light, tokenizer, settings.seed, device)

    sample = (
        np.random.default_rng(settings.seed)
        .permutation([i for i in range(len(varied)) if i % n in fitted])
        .tolist()
    )
    tokens = [
        torch.cat(grids)
        for grids in zip(*chain.from_iterable(map(inputs.tokens, sample[:WHITENING_SAMPLE])), strict=True)
    ]
    shapes: list[GridShape] = [(grid.shape[1], grid.shape[2], grid.shape[3]) for grid in tokens]
    model = create_model(config, shapes).to(device)
    model.fit_tokens(tokens)
    del tokens  # hundreds of megabytes
    with TokenStore() as store:
        for index in range(len(varied)):
            _check(cancel)
            for hierarchies in inputs.tokens(index):
                store.append(model.prepare(hierarchies), index % n)
            progress("tokenize", index + 1, len(varied), math.nan)
        owners = np.array(store.owners)
        fitted_rows, held_out_rows = (np.flatnonzero(np.isin(owners, part)) for part in (fitted, held_out))
        final_loss = fit_model(model, store, fitted_rows, settings, progress, cancel)
        if not math.isfinite(final_loss):
            raise DataError(
                f"training: {name}'s loss is {final_loss} at a learning rate of {settings.learning_rate}; "
                "check that the pictures are of good parts, and lower the rate"
            )
        region = None  # of tiles it is another one in each, and `score_whole` sees to it
        if isinstance(alignment, PaintedOver) and config.framing == "square":
            region = alignment.ignored
        scoring, scores = calibrate(model, store, fitted_rows, held_out_rows, config, region)
        if config.framing == "tiles" or settings.variants:

            def inspector_of(scoring: Scoring) -> Inspector:
                return Inspector(
                    config, alignment, tokenizer, model, scoring, NO_LIMITS, {"light": light}, device
                )

            scores = score_whole(
                inspector_of, model, store, fitted_rows, held_out_rows, images, config, progress, cancel
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
        "training_sha256": images_hash(digests),
        "good_parts": n,
        "fitted_parts": len(fitted),
        "held_out_parts": len(held_out),
        "fitted_inputs": len(fitted_rows),
        "seed": settings.seed,
        "final_loss": final_loss,
        "fit_s": time.monotonic() - started,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "shapes": shapes,
        "light": light,
        "conditions": usual_conditions([inputs.conditions[index] for index in range(n)]),
    }
    return Inspector(config, alignment, tokenizer, model, scoring, limits, provenance, device)


def different_parts(images: Sequence[ImageRgb]) -> list[str]:
    """The images' digests.

    Raises:
        DataError: fewer than MIN_GOOD_PARTS of them, or all but a few are copies.
    """
    digests = image_digests(images)
    different = len(set(digests))
    if different < MIN_GOOD_PARTS:
        copies = f", {different} different ones; copies do not show how parts differ"
        raise DataError(
            f"training needs at least {MIN_GOOD_PARTS} good parts (got {len(images)}"
            f"{copies if different < len(images) else ''})"
        )
    return digests


def split(n: int, settings: TrainingConfig) -> tuple[list[int], list[int]]:
    """Seeded split of n parts into those the loop sees and those held out for calibration and limits."""
    order = np.random.default_rng(settings.seed).permutation(n).tolist()
    held_out = held_out_parts(n, settings)
    return sorted(order[held_out:]), sorted(order[:held_out])


class Inputs:
    """What is trained on: images and their varied copies, as tiles, as tokens. Every pass gives the same."""

    def __init__(
        self,
        varied: Varied,
        fitted: Sequence[int],
        images: int,
        framing: Framing,
        alignment: Alignment,
        light: float | None,
        tokenizer: Tokenizer,
        seed: int,
        device: str,
    ) -> None:
        self.varied = varied
        self.framing = framing
        self.alignment = alignment
        self.light = light
        self.tokenizer = tokenizer
        self.seed = seed
        self.device = device
        # How each image or copy was taken, once its tokens were asked for.
        self.conditions: dict[int, dict[str, float]] = {}
        copies = len(varied) // images
        sides = len(fitted), images - len(fitted)
        self.tiles_each = [max(1, MAX_TILES // (copies * sides[i not in fitted])) for i in range(images)]

    @torch.no_grad()
    def tokens(self, index: int) -> Iterator[list[Tensor]]:
        """The hierarchies (B, C_i, H_i, W_i) of image or copy `index`, some tiles at a time."""
        rng = np.random.default_rng([self.seed, index])
        image_rgb = self.varied[index]
        aligned = level(self.framing.align(self.alignment, image_rgb), self.light)
        self.conditions[index] = measure(aligned, image_rgb.shape[:2])
        count = self.tiles_each[index % len(self.tiles_each)]
        for tiles_rgb in self.framing.samples(aligned, count, rng):
            yield self.tokenizer(to_tensor(tiles_rgb).to(self.device))


def fit_model(
    model: VarAD,
    store: TokenStore,
    rows: NDArray[np.int64],
    settings: TrainingConfig,
    progress: Progress,
    cancel: Event,
) -> float:
    """The loop, over these rows of the store. Returns the mean loss of its last tenth.

    AdamW with a one-cycle rate; with `minutes` the cycle follows the clock, so a slow machine trains less,
    not wrongly.
    """
    betas = (0.9, 0.99) if isinstance(model, StationVarAD) else (0.5, 0.999)  # the paper's
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=betas, weight_decay=0.01
    )
    generator = torch.Generator().manual_seed(settings.seed)
    device = next(model.parameters()).device
    n, batch_size = len(rows), min(settings.batch_size, len(rows))
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
        loss = model.loss([grid.to(device) for grid in store.rows(rows[batch])])
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
def predict_all(
    model: VarAD, store: TokenStore, rows: NDArray[np.int64], batch_size: int = 8
) -> list[Prediction]:
    """Predictions of these rows, joined per hierarchy."""
    device = next(model.parameters()).device
    parts = [
        model.predict([grid.to(device) for grid in store.rows(rows[start : start + batch_size])])
        for start in range(0, len(rows), batch_size)
    ]
    return [
        (torch.cat([p[i][0] for p in parts]).cpu(), torch.cat([p[i][1] for p in parts]).cpu())
        for i in range(len(parts[0]))
    ]


@torch.no_grad()
def calibrate(
    model: VarAD,
    store: TokenStore,
    fitted: NDArray[np.int64],
    held_out: NDArray[np.int64],
    config: VaradConfig,
    ignored: Mask | None = None,
) -> tuple[Scoring, NDArray[np.float64]]:
    """The scoring, and the scores of the held-out rows for the limits, of squares without what is `ignored`.

    The residuals of fitted parts are somewhat smaller than those of held-out ones, but there are more of
    them: at most FITTED_SAMPLE help to shape the Gaussians. Whatever has to be true of new parts, statistics
    per position and limits, comes from held-out parts alone.
    """
    if not isinstance(model, StationVarAD):
        cosine = CosineScoring(config.image_size_px)
        maps = counting_each(cosine.maps(predict_all(model, store, held_out)), ignored)
        return cosine, cosine.scores(maps).double().numpy()
    fitted = np.random.default_rng(config.training.seed).permutation(fitted)[:FITTED_SAMPLE]
    ((predicted, target),) = predict_all(model, store, np.concatenate([held_out, fitted]))
    is_held_out = torch.arange(len(predicted)) < len(held_out)
    gaussian, scores = fit_gaussian_scoring(
        predicted, target, is_held_out, config.scoring, config.training.seed, ignored
    )
    return gaussian, scores.double().numpy()


def score_whole(
    inspector_of: Callable[[Scoring], Inspector],
    model: VarAD,
    store: TokenStore,
    fitted: NDArray[np.int64],
    held_out: NDArray[np.int64],
    images: Sequence[ImageRgb],
    config: VaradConfig,
    progress: Progress,
    cancel: Event,
) -> NDArray[np.float64]:
    """Scores of the held-out images for the limits, each inspected whole, as in production.

    The scoring of one half of the images is fitted without the inputs of that half: tiles of one image
    overlap, and its varied copies resemble each other, so it is images that are kept apart.

    Args:
        inspector_of: an inspector with this scoring.
        model: the fitted predictor.
        store: see `calibrate`.
        fitted: rows, see `calibrate`.
        held_out: rows, see `calibrate`.
        images: what the store's owners count.
        config: see `train`.
        progress: see `train`.
        cancel: see `train`.
    """
    owners = np.array(store.owners)[held_out]
    parts = np.unique(owners)
    scores: list[float] = []
    for half in (parts[::2], parts[1::2]):
        scoring, _ = calibrate(model, store, fitted, held_out[~np.isin(owners, half)], config)
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
