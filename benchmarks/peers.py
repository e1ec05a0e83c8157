"""VarAD and the published methods it is compared with, under one interface and on the same features.

    name              what
    station, paper    VarAD's presets
    no prediction     `station` without what makes it VarAD; this and others: `benchmarks.variants`
    patchcore         Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022
    patchcore+align   the same behind VarAD's fitted alignment
    padim             Defard et al., "PaDiM", ICPR workshops 2021

PatchCore and PaDiM are anomalib's torch modules, without its trainer. Their backbone is ResNet-18 with
exactly the tokenizer's weights, layers 2 and 3 (PaDiM's own choice is 1 to 3), and they see what VarAD sees:
the same squares, or with framing `tiles` tiles cut and blended in the same way. Then they learn from as many
as VarAD's predictor does, MAX_TILES; it takes as many again of its held-out images to calibrate.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.variants import VARIANTS, Variant
from varad_core.alignment import fit_alignment, map_to_image
from varad_core.config import (
    AlignmentName,
    FramingName,
    Preset,
    TokenizerName,
    VaradConfig,
    default_config,
)
from varad_core.ignoring import Mask, counting, following
from varad_core.tiling import Framing
from varad_core.tokenizer import IMAGENET_MEAN, IMAGENET_STD, TimmTokenizer, create_tokenizer, to_tensor
from varad_core.train import ALIGNMENT_SAMPLE, MAX_TILES, train
from varad_core.types import AnomalyResult

ImageRgb = NDArray[np.uint8]
VARAD_METHODS = ("station", "paper", *VARIANTS)
PRESET = Variant("the preset")
PEERS = ("patchcore", "patchcore+align", "padim")
METHODS = (*VARAD_METHODS, *PEERS)
TOKENIZER: TokenizerName = "resnet18"
LAYERS = ("layer2", "layer3")
CORESET_SHARE = 0.01
NEIGHBOURS = 9  # PatchCore's reweighting of the image score
PADIM_FEATURES = 100  # of 384, drawn by the seed: the paper's for ResNet-18


class Method(Protocol):
    """One anomaly detector."""

    def fit(self, images: Sequence[ImageRgb], ignored: Mask | None = None) -> None:
        """Learn from good parts, uint8 (H, W, 3) each; `ignored`: see `varad_core.train.train`."""
        ...

    def inspect(self, image_rgb: ImageRgb) -> AnomalyResult:
        """Judge one image; timings may be left out."""
        ...

    def fitted_numbers(self) -> int:
        """How many numbers `fit` left behind: weights, bank or Gaussians, without the backbone."""
        ...


class VaradMethod:
    """One of VarAD's presets, or a variant."""

    def __init__(self, config: VaradConfig, weights: Path, variant: Variant = PRESET) -> None:
        self.config = config
        self.weights = weights if config.tokenizer == TOKENIZER else None
        self.variant = variant

    def fit(self, images: Sequence[ImageRgb], ignored: Mask | None = None) -> None:
        with self.variant.patched():
            self.inspector = train(
                images, self.config, name=self.config.preset, weights=self.weights, ignored=ignored
            )

    def inspect(self, image_rgb: ImageRgb) -> AnomalyResult:
        with self.variant.patched():
            return self.inspector.inspect(image_rgb)

    def fitted_numbers(self) -> int:
        tensors = [*self.inspector.model.state_dict().values(), *self.inspector.scoring.tensors().values()]
        return sum(tensor.numel() for tensor in tensors)


class AnomalibMethod(ABC):
    """What PatchCore and PaDiM share; seed, alignment, framing and backbone are as `station` has them."""

    def __init__(self, config: VaradConfig, weights: Path) -> None:
        self.config = config
        self.framing = Framing(config)
        self.tokenizer = create_tokenizer(TOKENIZER, config.image_size_px, weights)  # lets torchvision in
        random.seed(config.training.seed)
        np.random.seed(config.training.seed)
        torch.manual_seed(config.training.seed)
        self.model = self.create_model().eval()
        assert isinstance(self.tokenizer, TimmTokenizer)
        self.model.feature_extractor.feature_extractor.load_state_dict(self.tokenizer.net.state_dict())

    @abstractmethod
    def create_model(self) -> Any:
        """anomalib's torch module."""

    @abstractmethod
    def finish(self) -> None:
        """Turn the training images' features into the model."""

    @abstractmethod
    def fitted_numbers(self) -> int:
        """See `Method`."""

    @torch.no_grad()
    def fit(self, images: Sequence[ImageRgb], ignored: Mask | None = None) -> None:
        self.alignment = fit_alignment(self.config.alignment, images[:ALIGNMENT_SAMPLE])
        if ignored is not None:
            first = self.framing.align(self.alignment, images[0])
            self.alignment = following(self.alignment, ignored, first)
        self.model.train()
        for index, image_rgb in enumerate(images):
            rng = np.random.default_rng([self.config.training.seed, index])
            aligned = self.framing.align(self.alignment, image_rgb)
            count = max(1, MAX_TILES // len(images))
            for tiles_rgb in self.framing.samples(aligned, count, rng):
                self.model(self.normalised(tiles_rgb))
        self.finish()
        self.model.eval()

    @torch.inference_mode()
    def inspect(self, image_rgb: ImageRgb) -> AnomalyResult:
        aligned = self.framing.align(self.alignment, image_rgb)
        ((layer_rgb, grid),) = self.framing.layers(aligned.image_rgb)
        found = [self.model(self.normalised(tiles_rgb)) for tiles_rgb in grid.cut(layer_rgb)]
        canonical_map = grid.blend(one.anomaly_map[:, 0] for one in found)
        if aligned.ignored is not None:
            canonical_map = counting(canonical_map, aligned.ignored, self.framing.beside_px)
        shape = image_rgb.shape[0], image_rgb.shape[1]
        out = layer_rgb.shape[0], layer_rgb.shape[1]
        score = max(float(one.pred_score.max()) for one in found)
        return AnomalyResult(score, map_to_image(canonical_map.numpy(), aligned, shape, out))

    @staticmethod
    def normalised(tiles_rgb: ImageRgb) -> Tensor:
        """uint8 (B, S, S, 3) -> (B, 3, S, S), ImageNet's mean and deviation."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return (to_tensor(tiles_rgb) - mean) / std


class PatchCore(AnomalibMethod):
    """A bank of patch features thinned to a coreset; distance to the nearest."""

    def create_model(self) -> Any:
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel

        return PatchcoreModel(LAYERS, backbone=TOKENIZER, pre_trained=False, num_neighbors=NEIGHBOURS)

    def finish(self) -> None:
        self.model.subsample_embedding(CORESET_SHARE)

    def fitted_numbers(self) -> int:
        return int(self.model.memory_bank.numel())


class Padim(AnomalibMethod):
    """One Gaussian of patch features for each place; Mahalanobis distance."""

    def create_model(self) -> Any:
        from anomalib.models.image.padim.torch_model import PadimModel

        return PadimModel(TOKENIZER, list(LAYERS), pre_trained=False, n_features=PADIM_FEATURES)

    def finish(self) -> None:
        self.model.fit()

    def fitted_numbers(self) -> int:
        gaussian = self.model.gaussian
        return int(gaussian.mean.numel() + gaussian.inv_covariance.numel())


def create_method(
    name: str, image_size_px: int, weights: Path, seed: int, framing: FramingName = "square"
) -> Method:
    """One of METHODS, not fitted.

    Raises:
        ModuleNotFoundError: a peer is asked for and anomalib is not installed.
        WeightsError: see `create_tokenizer`.
    """
    config = method_config(name, image_size_px, seed, framing)
    if name in VARAD_METHODS:
        return VaradMethod(config, weights, VARIANTS.get(name, PRESET))
    return (Padim if name == "padim" else PatchCore)(config, weights)


def method_config(name: str, image_size_px: int, seed: int, framing: FramingName = "square") -> VaradConfig:
    """The preset as `station train` would use it, or the variant; of a peer's, what both have counts."""
    preset: Preset = "paper" if name == "paper" else "station"
    alignment: AlignmentName = "none" if name in ("patchcore", "padim") else "auto"
    config = replace(default_config(preset, TOKENIZER, image_size_px, alignment, seed), framing=framing)
    return VARIANTS[name].configure(config) if name in VARIANTS else config


def method_settings(name: str, image_size_px: int, seed: int, framing: FramingName) -> dict[str, Any]:
    """All that decides what a method does, besides its images, weights and code."""
    config = method_config(name, image_size_px, seed, framing)
    if name in VARAD_METHODS:
        return config.to_dict()
    peer = {"anomalib": anomalib_version(), "layers": list(LAYERS), "framing": framing}
    own: dict[str, Any] = {"coreset_share": CORESET_SHARE, "neighbours": NEIGHBOURS}
    return peer | ({"features": PADIM_FEATURES} if name == "padim" else own)


def anomalib_version() -> str:
    """Empty where it is not installed."""
    try:
        return version("anomalib")
    except PackageNotFoundError:
        return ""
