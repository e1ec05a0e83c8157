"""Published methods as anomalib has them, to measure VarAD beside: its torch modules, without its trainer.

    patchcore         Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022
    patchcore+align   the same behind VarAD's fitted alignment
    padim             Defard et al., "PaDiM", ICPR workshops 2021
    stfpm             Wang et al., "Student-Teacher Feature Pyramid Matching", BMVC 2021

Their backbone is ResNet-18 with exactly the tokenizer's weights: layers 2 and 3 (PaDiM's own choice is 1 to
3), and for STFPM, as published, 1 to 3. STFPM stands for the students and teachers, as EfficientAD's teacher
has to be downloaded; its training, STUDENT_STEPS, is a short one. All see what VarAD sees: the same squares,
or with framing `tiles` tiles cut and blended in the same way. Then they learn from as many as VarAD's
predictor does, MAX_TILES; it takes as many again of its held-out images to calibrate. What is ignored is left
out of their maps, but PatchCore's score comes with each tile as it is, the paint's edge included.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from varad_core.alignment import fit_alignment, map_to_image
from varad_core.config import TokenizerName, VaradConfig
from varad_core.ignoring import Mask, counting, following
from varad_core.tiling import Framing
from varad_core.tokenizer import IMAGENET_MEAN, IMAGENET_STD, TimmTokenizer, create_tokenizer, to_tensor
from varad_core.train import ALIGNMENT_SAMPLE, MAX_TILES
from varad_core.types import AnomalyResult

ImageRgb = NDArray[np.uint8]
BACKBONE: TokenizerName = "resnet18"
LAYERS = ("layer2", "layer3")
STUDENT_LAYERS = ("layer1", "layer2", "layer3")
CORESET_SHARE = 0.01
NEIGHBOURS = 9  # PatchCore's reweighting of the image score
PADIM_FEATURES = 100  # of 384, drawn by the seed: the paper's for ResNet-18
STUDENT_STEPS, STUDENT_BATCH = 100, 32
STUDENT_RATE, STUDENT_MOMENTUM, STUDENT_DECAY = 0.4, 0.9, 1e-3  # of SGD, anomalib's


class AnomalibMethod(ABC):
    """What they share; seed, alignment, framing and backbone are as `station` has them."""

    settings: ClassVar[dict[str, Any]]  # the method's own, all that a run depends on
    scores_by_map = True  # its score is its map's highest value

    def __init__(self, config: VaradConfig, weights: Path) -> None:
        self.config = config
        self.framing = Framing(config)
        self.tokenizer = create_tokenizer(BACKBONE, config.image_size_px, weights)  # lets torchvision in
        random.seed(config.training.seed)
        np.random.seed(config.training.seed)
        torch.manual_seed(config.training.seed)
        self.model = self.create_model().eval()
        assert isinstance(self.tokenizer, TimmTokenizer)
        self.backbone().load_state_dict(self.tokenizer.net.state_dict())

    @abstractmethod
    def create_model(self) -> Any:
        """anomalib's torch module."""

    @abstractmethod
    def backbone(self) -> Any:
        """The module's ResNet-18, frozen."""

    @abstractmethod
    def learn(self, inputs: Iterator[Tensor]) -> None:
        """From batches (B, 3, S, S) of the training images' inputs, the module in training mode."""

    @abstractmethod
    def fitted_numbers(self) -> int:
        """See `peers.Method`."""

    def fit(self, images: Sequence[ImageRgb], ignored: Mask | None = None) -> None:
        self.alignment = fit_alignment(self.config.alignment, images[:ALIGNMENT_SAMPLE])
        if ignored is not None:
            first = self.framing.align(self.alignment, images[0])
            self.alignment = following(self.alignment, ignored, first, self.framing.beside_px)
        self.model.train()
        self.learn(self.inputs(images))
        self.model.eval()

    def inputs(self, images: Sequence[ImageRgb]) -> Iterator[Tensor]:
        for index, image_rgb in enumerate(images):
            rng = np.random.default_rng([self.config.training.seed, index])
            aligned = self.framing.align(self.alignment, image_rgb)
            count = max(1, MAX_TILES // len(images))
            for tiles_rgb in self.framing.samples(aligned, count, rng):
                yield self.normalised(tiles_rgb)

    @torch.inference_mode()
    def inspect(self, image_rgb: ImageRgb) -> AnomalyResult:
        aligned = self.framing.align(self.alignment, image_rgb)
        ((layer_rgb, grid),) = self.framing.layers(aligned)
        found = [self.model(self.normalised(tiles_rgb)) for tiles_rgb in grid.cut(layer_rgb)]
        canonical_map = grid.blend(one.anomaly_map[:, 0] for one in found)
        if aligned.ignored is not None:
            canonical_map = counting(canonical_map, aligned.ignored, self.framing.beside_px)
        shape = image_rgb.shape[0], image_rgb.shape[1]
        out = layer_rgb.shape[0], layer_rgb.shape[1]
        score = float(torch.cat([one.pred_score.flatten() for one in found]).max())
        if aligned.ignored is not None and self.scores_by_map:
            score = float(canonical_map.max())
        return AnomalyResult(score, map_to_image(canonical_map.numpy(), aligned, shape, out))

    @staticmethod
    def normalised(tiles_rgb: ImageRgb) -> Tensor:
        """uint8 (B, S, S, 3) -> (B, 3, S, S), ImageNet's mean and deviation."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return (to_tensor(tiles_rgb) - mean) / std


class FeatureStatistics(AnomalibMethod):
    """Those that keep the training images' features in one pass, then turn them into the model."""

    def backbone(self) -> Any:
        return self.model.feature_extractor.feature_extractor

    @torch.no_grad()
    def learn(self, inputs: Iterator[Tensor]) -> None:
        for batch in inputs:
            self.model(batch)
        self.finish()

    @abstractmethod
    def finish(self) -> None:
        """Turn the features into the model."""


class PatchCore(FeatureStatistics):
    """A bank of patch features thinned to a coreset; distance to the nearest."""

    settings: ClassVar = {"layers": list(LAYERS), "coreset_share": CORESET_SHARE, "neighbours": NEIGHBOURS}
    scores_by_map = False

    def create_model(self) -> Any:
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel

        return PatchcoreModel(LAYERS, backbone=BACKBONE, pre_trained=False, num_neighbors=NEIGHBOURS)

    def finish(self) -> None:
        self.model.subsample_embedding(CORESET_SHARE)

    def fitted_numbers(self) -> int:
        return int(self.model.memory_bank.numel())


class Padim(FeatureStatistics):
    """One Gaussian of patch features for each place; Mahalanobis distance."""

    settings: ClassVar = {"layers": list(LAYERS), "features": PADIM_FEATURES}

    def create_model(self) -> Any:
        from anomalib.models.image.padim.torch_model import PadimModel

        return PadimModel(BACKBONE, list(LAYERS), pre_trained=False, n_features=PADIM_FEATURES)

    def finish(self) -> None:
        self.model.fit()

    def fitted_numbers(self) -> int:
        gaussian = self.model.gaussian
        return int(gaussian.mean.numel() + gaussian.inv_covariance.numel())


class StudentTeacher(AnomalibMethod):
    """A student learns to give the frozen teacher's features; product of the layers' differences."""

    settings: ClassVar = {
        "layers": list(STUDENT_LAYERS), "steps": STUDENT_STEPS, "batch": STUDENT_BATCH,
        "sgd": [STUDENT_RATE, STUDENT_MOMENTUM, STUDENT_DECAY],
    }  # fmt: skip

    def create_model(self) -> Any:
        from anomalib.models.components import TimmFeatureExtractor
        from anomalib.models.image.stfpm import torch_model

        def local(pre_trained: bool, **options: Any) -> Any:
            return TimmFeatureExtractor(pre_trained=False, **options)  # it would download the teacher

        with patch.object(torch_model, "TimmFeatureExtractor", local):
            return torch_model.STFPMModel(STUDENT_LAYERS, BACKBONE)

    def backbone(self) -> Any:
        return self.model.teacher_model.feature_extractor

    def learn(self, inputs: Iterator[Tensor]) -> None:
        from anomalib.models.image.stfpm.loss import STFPMLoss

        every, loss_of = torch.cat(list(inputs)), STFPMLoss()
        optimizer = torch.optim.SGD(
            self.model.student_model.parameters(),
            lr=STUDENT_RATE,
            momentum=STUDENT_MOMENTUM,
            weight_decay=STUDENT_DECAY,
        )
        queue = every[:0]
        for _ in range(STUDENT_STEPS):
            while len(queue) < STUDENT_BATCH:
                queue = torch.cat([queue, every[torch.randperm(len(every))]])
            loss = loss_of(*self.model(queue[:STUDENT_BATCH]))
            queue = queue[STUDENT_BATCH:]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def fitted_numbers(self) -> int:
        return sum(tensor.numel() for tensor in self.model.student_model.state_dict().values())


PEERS: dict[str, type[AnomalibMethod]] = {
    "patchcore": PatchCore,
    "patchcore+align": PatchCore,
    "padim": Padim,
    "stfpm": StudentTeacher,
}


def peer_settings(name: str, framing: str) -> dict[str, Any]:
    """All that decides what a peer does, besides its images, weights and code."""
    return {"anomalib": anomalib_version(), "framing": framing, **PEERS[name].settings}


def anomalib_version() -> str:
    """Empty where it is not installed."""
    try:
        return version("anomalib")
    except PackageNotFoundError:
        return ""
