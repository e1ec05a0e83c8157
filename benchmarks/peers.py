"""VarAD and the published methods it is compared with, under one interface and on the same features.

name              what
station, paper    VarAD's presets
no prediction     `station` without what makes it VarAD; this and others: `benchmarks.variants`
patchcore, ...    see `benchmarks.anomalib_peers`
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from benchmarks.anomalib_peers import BACKBONE, PEERS, ImageRgb, peer_settings
from benchmarks.variants import VARIANTS, Variant
from varad_core.config import AlignmentName, FramingName, Preset, VaradConfig, default_config
from varad_core.ignoring import Mask
from varad_core.train import train
from varad_core.types import AnomalyResult

VARAD_METHODS = ("station", "paper", *VARIANTS)
PRESET = Variant("the preset")
METHODS = (*VARAD_METHODS, *PEERS)


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
        self.weights = weights if config.tokenizer == BACKBONE else None
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


def create_method(
    name: str, image_size_px: int, weights: Path, seed: int, framing: FramingName = "square"
) -> Method:
    """One of METHODS, not fitted.

    Raises:
        ModuleNotFoundError: a peer is asked for and anomalib is not installed.
        WeightsError: see `create_tokenizer`.
    """
    config = method_config(name, image_size_px, seed, framing)
    if name in PEERS:
        return PEERS[name](config, weights)
    return VaradMethod(config, weights, VARIANTS.get(name, PRESET))


def method_config(name: str, image_size_px: int, seed: int, framing: FramingName = "square") -> VaradConfig:
    """The preset at this framing, or the variant; of a peer's, what both have counts."""
    preset: Preset = "paper" if name == "paper" else "station"
    alignment: AlignmentName = "none" if name in PEERS and not name.endswith("+align") else "auto"
    config = replace(default_config(preset, BACKBONE, image_size_px, alignment, seed), framing=framing)
    return VARIANTS[name].configure(config) if name in VARIANTS else config


def method_settings(name: str, image_size_px: int, seed: int, framing: FramingName) -> dict[str, Any]:
    """All that decides what a method does, besides its images, weights and code."""
    if name in PEERS:
        return peer_settings(name, framing)
    return method_config(name, image_size_px, seed, framing).to_dict()
