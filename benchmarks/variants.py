"""The station preset with one thing changed: what `python -m benchmarks ablation` compares.

A change is either to the configuration or, where the library keeps only the way that won, to the code: a
context that puts the other way in its place for one run, in a process of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.banks import ResidualBank, TokenBank, TokenGaussians, judged_by
from varad_core import model, scoring, train
from varad_core.config import TokenizerName, VaradConfig, default_config
from varad_core.scoring import CosineScoring, GaussianScoring
from varad_core.tokenizer import create_tokenizer


@dataclass(frozen=True, slots=True)
class Variant:
    """What is changed.

    Attributes:
        says: in words.
        configure: the preset's configuration to the variant's.
        patched: the code as the variant needs it.
    """

    says: str
    configure: Callable[[VaradConfig], VaradConfig] = lambda config: config
    patched: Callable[[], AbstractContextManager[Any]] = nullcontext


def predictor(**changes: Any) -> Callable[[VaradConfig], VaradConfig]:
    return lambda config: replace(config, predictor=replace(config.predictor, **changes))


def training(**changes: Any) -> Callable[[VaradConfig], VaradConfig]:
    return lambda config: replace(config, training=replace(config.training, **changes))


def scored(**changes: Any) -> Callable[[VaradConfig], VaradConfig]:
    return lambda config: replace(config, scoring=replace(config.scoring, **changes))


def no_prediction(config: VaradConfig) -> VaradConfig:
    """An untrained head predicts the places' means, a constant: what is left is a Gaussian of the tokens."""
    return scored(clusters=1)(training(steps=1, learning_rate=0.0)(config))


@contextmanager
def whole_image_statistics() -> Iterator[None]:
    def overall(distances: Tensor, smoothing: float) -> dict[str, Tensor]:
        return {"location": distances.mean(), "spread": distances.std()}

    with patch.object(scoring, "fit_positions", overall):
        yield


@contextmanager
def place_statistics() -> Iterator[None]:
    def by_position(distances: Tensor, smoothing: float) -> dict[str, Tensor]:
        location, spread = scoring._by_position(distances, smoothing)
        return {"location": location, "spread": spread}

    with patch.object(scoring, "fit_positions", by_position):
        yield


@contextmanager
def raw_cosine() -> Iterator[None]:
    """1 - cosine of prediction and token, scored as ever: nothing is calibrated on good parts."""

    def maps(own: GaussianScoring, predictions: Any) -> Tensor:
        side = predictions[0][0].shape[-1]
        layers = CosineScoring(4 * side)
        return layers.maps(predictions)

    with patch.object(GaussianScoring, "maps", maps):
        yield


@contextmanager
def directions_apart() -> Iterator[None]:
    """The mean of what each direction predicts by itself, instead of one head that sees all of them."""

    def fuse(own: model.StationVarAD, hidden: Tensor) -> Tensor:
        return own.get_buffer("place") + torch.matmul(hidden, own.direction_heads).mean(1)

    with patch.object(model.StationVarAD, "fuse", fuse):
        yield


@contextmanager
def ring_means() -> Iterator[None]:
    """A prediction that takes no learning: the mean of the tokens three places away, all around."""

    def predict(own: model.StationVarAD, prepared: Sequence[Tensor]) -> list[model.Prediction]:
        target = model.unpack_hierarchies(prepared[0], own.shapes)
        channels = target.shape[1]
        ring = torch.ones(channels, 1, 7, 7, device=target.device)
        ring[..., 1:6, 1:6] = 0
        around = F.conv2d(F.pad(target, [3] * 4, mode="reflect"), ring, groups=channels)
        return [(around / ring[0].sum(), target)]

    with patch.object(model.StationVarAD, "predict", predict):
        yield


def one_hierarchy(index: int) -> Callable[[], AbstractContextManager[Any]]:
    @contextmanager
    def patched() -> Iterator[None]:
        def create(*args: Any, **options: Any) -> Any:
            tokenizer = create_tokenizer(*args, **options)
            every = tokenizer.forward
            tokenizer.forward = lambda images: [every(images)[index]]  # type: ignore[method-assign]
            return tokenizer

        with patch.object(train, "create_tokenizer", create):
            yield

    return patched


def tokenizer(name: TokenizerName) -> Callable[[VaradConfig], VaradConfig]:
    return lambda config: replace(
        default_config("station", name, config.image_size_px, seed=config.training.seed),
        framing=config.framing,
    )


def tokenizer_alone(name: TokenizerName) -> Callable[[VaradConfig], VaradConfig]:
    return lambda config: no_prediction(tokenizer(name)(config))


def paper_detached(config: VaradConfig) -> VaradConfig:
    paper = default_config("paper", config.tokenizer, config.image_size_px, seed=config.training.seed)
    detached = replace(paper.predictor, detach_target=True)
    return replace(paper, predictor=detached, framing=config.framing)


VARIANTS: Mapping[str, Variant] = {
    "no prediction": Variant("tokens judged by themselves", no_prediction),
    "no alignment": Variant(
        "the whole picture, wherever the part is", lambda config: replace(config, alignment="none")
    ),
    "raw cosine": Variant("nothing calibrated on good parts", patched=raw_cosine),
    "one gaussian": Variant("residuals of all predictions alike", scored(clusters=1)),
    "ring means": Variant(
        "predicted, without learning, as the mean of the tokens three places away",
        training(steps=1),
        ring_means,
    ),
    "tokens, not residuals": Variant(
        "a Gaussian of tokens for each cluster of predictions", patched=judged_by(TokenGaussians)
    ),
    "bank of residuals": Variant("nearest of 4 000 good residuals", patched=judged_by(ResidualBank)),
    "bank of tokens": Variant("nearest of 4 000 good tokens", patched=judged_by(TokenBank)),
    "positions never": Variant("one mean and spread for the whole map", patched=whole_image_statistics),
    "positions always": Variant("mean and spread of every place", patched=place_statistics),
    "light levelled": Variant(
        "pictures at the training parts' brightness", lambda config: replace(config, level_light=True)
    ),
    "fine only": Variant("the finer hierarchy alone", patched=one_hierarchy(0)),
    "coarse only": Variant("the coarser hierarchy alone", patched=one_hierarchy(1)),
    "neighbourhood 1": Variant("tokens not averaged with their neighbours", predictor(neighbourhood=1)),
    "components 32": Variant("32 principal components a hierarchy", predictor(components=32)),
    "lag 3 rows": Variant("predicted from farther away", predictor(lag_rows=3)),
    "directions 1": Variant("row-major alone", predictor(directions=1)),
    "directions apart": Variant("each direction by itself, averaged", patched=directions_apart),
    "wider, deeper": Variant("d_model 128, two layers", predictor(d_model=128, layers=2)),
    "maximum": Variant("image score: the highest cell", scored(top_share=1e-6)),
    "top 5 %": Variant("image score: mean of the top 5 %", scored(top_share=0.05)),
    "embedded": Variant("the tokenizer trained on procedural images", tokenizer("embedded")),
    "embedded, no prediction": Variant("its tokens judged by themselves", tokenizer_alone("embedded")),
    "descriptors": Variant("the filter bank", tokenizer("descriptors")),
    "descriptors, no prediction": Variant("its tokens judged by themselves", tokenizer_alone("descriptors")),
    "paper, target detached": Variant(
        "the published method, whose adapter learns nothing from targets", paper_detached
    ),
    "varied copies": Variant("two varied copies of each good part", training(variants=2)),
    "steps 25": Variant("a quarter of the steps", training(steps=25)),
    "steps 400": Variant("four times the steps", training(steps=400)),
}
