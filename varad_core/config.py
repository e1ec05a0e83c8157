"""What decides how a VarAD model is built, trained and scored: frozen, checked, kept in the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, cast, get_args

Preset = Literal["station", "paper"]
TokenizerName = Literal[
    "embedded", "descriptors", "resnet18", "dinov2_vits14", "dinov2_vitb14", "dinov3_vits16", "dinov3_vitb16"
]
AlignmentName = Literal["auto", "none", "disc"]
FramingName = Literal["auto", "square", "tiles"]

PATCH_SIZE_PX: Mapping[str, int] = {  # the working size must be a multiple of it
    "embedded": 16,
    "descriptors": 16,
    "resnet18": 16,
    "dinov2_vits14": 14,
    "dinov2_vitb14": 14,
    "dinov3_vits16": 16,
    "dinov3_vitb16": 16,
}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorConfig:
    """The autoregressive predictor.

    Attributes:
        neighbourhood: side of the square of tokens that each token is the mean of before anything else, 1 =
            itself (`station`; Roth et al., "PatchCore", CVPR 2022, section 3.1).
        components: principal components of a hierarchy's tokens that are predicted and judged, at most; never
            more than half of its channels (`station`).
        d_model: width of the hidden state (`paper`: unused, the tokens' own width).
        layers: scan layers (`paper`: always one per hierarchy).
        d_state: states N per channel of the recurrence.
        dt_rank: rank of the step-size projection.
        directions: scan directions, 1 or 4.
        lag_rows: M in rows: token l is predicted from tokens up to l - M (`paper`: see `scan.token_lag`).
        direction_loss: weight of each direction's own loss beside the fused one (`station`).
        detach_target: whether the adapter gets no gradient through the target (`paper`; the released code:
            no).
    """

    neighbourhood: int = 3
    components: int = 128
    d_model: int = 64
    layers: int = 1
    d_state: int = 16
    dt_rank: int = 8
    directions: int = 4
    lag_rows: int = 1
    direction_loss: float = 0.5
    detach_target: bool = False

    def __post_init__(self) -> None:
        for name in ("components", "d_model", "layers", "d_state", "dt_rank", "lag_rows"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1 (got {getattr(self, name)})")
        _require(self.neighbourhood in (1, 3), f"neighbourhood must be 1 or 3 (got {self.neighbourhood})")
        _require(self.directions in (1, 4), f"directions must be 1 or 4 (got {self.directions})")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """The training loop.

    Attributes:
        seed: of the split, the initial weights, the batches and the clusters.
        steps: optimiser steps; 0 = until `minutes`.
        minutes: wall time for the loop; 0 = until `steps`.
        batch_size: images per step.
        learning_rate: peak, AdamW.
        holdout_share: share of the good parts kept from the loop for calibration and limits.
        false_reject_target: wanted bound on the share of good parts rejected; None = the tightest that the
            held-out parts support.
        confidence: of that bound.
        recheck_quantile: share of held-out good parts below the recheck limit.
        variants: varied copies of each good part (see `varad_core.augmentation`), to train and to calibrate
            with; the limits are of the parts as they are. Memory grows with 1 + variants.
    """

    seed: int = 0
    steps: int = 100
    minutes: float = 0.0
    batch_size: int = 8
    learning_rate: float = 2e-3
    holdout_share: float = 0.4
    false_reject_target: float | None = None
    confidence: float = 0.95
    recheck_quantile: float = 0.97
    variants: int = 0

    def __post_init__(self) -> None:
        _require(self.seed >= 0, f"seed must not be negative (got {self.seed})")
        _require(self.steps >= 0 and self.minutes >= 0, "steps and minutes must not be negative")
        _require(
            self.steps > 0 or self.minutes > 0, "give steps or minutes: both are 0, so nothing is trained"
        )
        _require(self.batch_size >= 1, f"batch_size must be at least 1 (got {self.batch_size})")
        _require(self.variants >= 0, f"variants must not be negative (got {self.variants})")
        for name in ("holdout_share", "false_reject_target", "confidence", "recheck_quantile"):
            value = getattr(self, name)
            _require(value is None or 0 < value < 1, f"{name} must be between 0 and 1 (got {value})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringConfig:
    """From prediction residuals to a map and a score (`station`).

    Attributes:
        clusters: conditional Gaussians, one per cluster of the predicted token.
        rank: directions kept per Gaussian in which it differs most from the common one.
        prior_weight: tokens' worth of belief in the common Gaussian when a cluster's is estimated.
        smoothing: Gaussian sigma over the map, in tokens of the finest hierarchy.
        top_share: the image score is the mean of this share of the map, its highest values.
    """

    clusters: int = 32
    rank: int = 32
    prior_weight: float = 3000.0
    smoothing: float = 1.2
    top_share: float = 0.01

    def __post_init__(self) -> None:
        _require(self.clusters >= 1 and self.rank >= 1, "clusters and rank must be at least 1")
        _require(self.prior_weight > 0, f"prior_weight must be positive (got {self.prior_weight})")
        _require(0 < self.smoothing <= 8, f"smoothing must be in (0, 8] (got {self.smoothing})")
        _require(0 < self.top_share <= 1, f"top_share must be in (0, 1] (got {self.top_share})")


@dataclass(frozen=True, slots=True, kw_only=True)
class VaradConfig:
    """One model.

    Attributes:
        preset: `station` (the measured recipe) or `paper` (the published method).
        tokenizer: the frozen backbone.
        image_size_px: side of the square the tokenizer sees; a multiple of its patch.
        alignment: how the part is brought to a canonical pose; `auto` decides from the training images.
        framing: `square` squeezes the picture into one square; `tiles` keeps its aspect ratio and covers it
            with overlapping squares; `auto` decides from the training images (see `varad_core.tiling`).
        resolutions_px: with `tiles`, the length the picture's shorter side is brought to; several are fused.
            Empty: `image_size_px`.
        tile_overlap: with `tiles`, the share of a tile that its neighbour sees as well.
        level_light: whether pictures are brought to the training parts' brightness (`varad_core.levelling`).
    """

    preset: Preset = "station"
    tokenizer: TokenizerName = "embedded"
    image_size_px: int = 256
    alignment: AlignmentName = "auto"
    framing: FramingName = "square"
    resolutions_px: tuple[int, ...] = ()
    tile_overlap: float = 0.375
    level_light: bool = False
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)

    def __post_init__(self) -> None:
        for name, kind in (
            ("preset", Preset),
            ("tokenizer", TokenizerName),
            ("alignment", AlignmentName),
            ("framing", FramingName),
        ):
            allowed = get_args(kind)
            _require(
                getattr(self, name) in allowed,
                f"{name} must be one of {', '.join(allowed)} (got {getattr(self, name)!r})",
            )
        patch = PATCH_SIZE_PX[self.tokenizer]
        _require(
            64 <= self.image_size_px <= 2048 and self.image_size_px % patch == 0,
            f"image_size_px must be 64 to 2048 and a multiple of {patch} for {self.tokenizer} "
            f"(got {self.image_size_px})",
        )
        object.__setattr__(self, "resolutions_px", tuple(self.resolutions_px))  # JSON knows lists alone
        _require(
            self.framing == "tiles" or not self.resolutions_px,
            f"resolutions_px are for framing tiles (got {self.resolutions_px} with framing {self.framing})",
        )
        for side_px in self.resolutions_px:
            _require(64 <= side_px <= 16384, f"resolutions_px must be 64 to 16384 each (got {side_px})")
        _require(
            len(set(self.resolutions_px)) == len(self.resolutions_px),
            f"resolutions_px must differ from each other (got {self.resolutions_px})",
        )
        _require(
            0.1 <= self.tile_overlap <= 0.75, f"tile_overlap must be 0.1 to 0.75 (got {self.tile_overlap})"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VaradConfig:
        """The inverse of `to_dict`.

        Raises:
            ValueError: a key is unknown or a value is out of range.
        """
        nested = {"predictor": PredictorConfig, "training": TrainingConfig, "scoring": ScoringConfig}
        plain = {key: value for key, value in values.items() if key not in nested}
        parts = {key: _build(kind, values.get(key, {})) for key, kind in nested.items()}
        return cast(VaradConfig, _build(cls, {**plain, **parts}))


def _build(kind: type[Any], values: Mapping[str, Any]) -> Any:
    unknown = set(values) - {entry.name for entry in fields(kind)}
    _require(not unknown, f"unknown keys in {kind.__name__}: {', '.join(sorted(unknown))}")
    return kind(**values)


def fit_image_size(image_size_px: int, tokenizer: TokenizerName) -> int:
    """The largest multiple of the tokenizer's patch within `image_size_px` (paper: 14 * floor(s / 14)).

    Raises:
        ValueError: it is below what any model takes; said here, of the size that was asked for.
    """
    patch = PATCH_SIZE_PX[tokenizer]
    _require(image_size_px >= 64, f"image_size_px must be 64 to 2048 (got {image_size_px})")
    return patch * (image_size_px // patch)


def default_config(
    preset: Preset,
    tokenizer: TokenizerName,
    image_size_px: int,
    alignment: AlignmentName = "auto",
    seed: int = 0,
) -> VaradConfig:
    """A preset's settings. `paper` has the released code's d_state 64, dt_rank 24, rate 5e-4 and batch 2."""
    if preset == "paper":
        return VaradConfig(
            preset="paper",
            tokenizer=tokenizer,
            image_size_px=fit_image_size(image_size_px, tokenizer),
            alignment="none" if alignment == "auto" else alignment,
            predictor=PredictorConfig(layers=1, d_state=64, dt_rank=24),
            training=TrainingConfig(seed=seed, steps=500, batch_size=2, learning_rate=5e-4),
        )
    # Descriptors come pooled, have four times the tokens of the others at the same size, and thin defects.
    # Half the width tells buttons apart as well, sooner.
    predictor, scoring = PredictorConfig(), ScoringConfig()
    if tokenizer == "descriptors":
        predictor = PredictorConfig(neighbourhood=1, d_model=32, d_state=8)
        scoring = ScoringConfig(top_share=0.003)
    elif "vit" in tokenizer:
        scoring = ScoringConfig(smoothing=0.6)  # one token is as wide as two of a ResNet's
    return VaradConfig(
        preset="station",
        tokenizer=tokenizer,
        image_size_px=fit_image_size(image_size_px, tokenizer),
        alignment=alignment,
        framing="auto",
        level_light=tokenizer in ("embedded", "descriptors"),  # timm's networks are used to light
        predictor=predictor,
        training=TrainingConfig(seed=seed),
        scoring=scoring,
    )
