"""What the student learns from: procedural images and the teacher's features of them, kept on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from varad_core.pretraining.images import render_image
from varad_core.pretraining.teacher import ResNet50V2
from varad_core.tokenizer import to_tensor

SIDE_PX = 256
BATCH = 8
PCA_IMAGES = 160


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Memory-mapped arrays, one row an image.

    Attributes:
        images: uint8 (n, S, S, 3).
        fine: float16 (n, C, S/8, S/8), principal components of stage 2.
        coarse: float16 (n, C', S/16, S/16), of stage 3.
    """

    images: NDArray[np.uint8]
    fine: NDArray[np.float16]
    coarse: NDArray[np.float16]


def render_batch(seed: int, first: int, count: int) -> NDArray[np.uint8]:
    """Images `first` to `first + count` of a seed: uint8 (count, S, S, 3)."""
    return np.stack([render_image(seed, index, SIDE_PX) for index in range(first, first + count)])


class Components:
    """The first principal components of a feature map, weaker ones lifted half way to equal variance.

    Whoever reads the tokens whitens them: components left at their own variance would hardly be learned, and
    fully whitened ones would drown the few that matter.
    """

    def __init__(self, tokens: Tensor, count: int) -> None:
        """Fit on (n, C)."""
        self.mean = tokens.mean(0)
        centred = tokens - self.mean
        values, vectors = torch.linalg.eigh((centred.t() @ centred).double() / len(tokens))
        values, vectors = values[-count:].flip(0), vectors[:, -count:].flip(1)
        scale = values**-0.25
        self.matrix = (vectors * scale / (values * scale.square()).mean().sqrt()).float()

    def __call__(self, grid: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, count, H, W), of mean square 1."""
        return torch.einsum("bchw,cd->bdhw", grid - self.mean.view(1, -1, 1, 1), self.matrix)


@torch.inference_mode()
def make_targets(
    teacher: ResNet50V2, folder: Path, *, seed: int, count: int, channels: tuple[int, int]
) -> Targets:
    """Render `count` images and their targets into a folder, or take up what an earlier run left there.

    Args:
        teacher: frozen.
        folder: takes 0.6 MB an image; a subfolder for each seed and count.
        seed: of the images; their principal components come from the first PCA_IMAGES.
        count: images, a multiple of 8.
        channels: of the fine and of the coarse targets.
    """
    folder = folder / f"seed-{seed}-images-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    targets = Targets(
        _array(folder / "images.npy", np.uint8, (count, SIDE_PX, SIDE_PX, 3)),
        _array(folder / "fine.npy", np.float16, (count, channels[0], SIDE_PX // 8, SIDE_PX // 8)),
        _array(folder / "coarse.npy", np.float16, (count, channels[1], SIDE_PX // 16, SIDE_PX // 16)),
    )
    marker = folder / "done.txt"
    first = int(marker.read_text()) if marker.exists() else 0
    components = _fit_components(teacher, seed, min(count, PCA_IMAGES), channels) if first < count else []
    for start in range(first, count, BATCH):
        rows = slice(start, start + BATCH)
        targets.images[rows] = render_batch(seed, start, BATCH)
        stages = teacher(to_tensor(targets.images[rows]))
        for array, stage, reduce in zip((targets.fine, targets.coarse), stages, components, strict=True):
            array[rows] = reduce(stage).numpy()
        unfinished = marker.with_suffix(".unfinished")
        unfinished.write_text(str(start + BATCH))
        unfinished.replace(marker)
        print(f"targets {start + BATCH}/{count}", flush=True)
    return targets


def _array(path: Path, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    if path.exists():
        return np.lib.format.open_memmap(path, "r+")
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def _fit_components(
    teacher: ResNet50V2, seed: int, count: int, channels: tuple[int, int]
) -> list[Components]:
    samples: tuple[list[Tensor], list[Tensor]] = ([], [])
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, count, BATCH):
        for sample, grid in zip(samples, teacher(to_tensor(render_batch(seed, start, BATCH))), strict=True):
            tokens = grid.flatten(2).transpose(1, 2).flatten(0, 1)  # (B * L, C)
            sample.append(tokens[torch.randperm(len(tokens), generator=generator)[: 32 * BATCH * 4]])
    return [Components(torch.cat(sample), size) for sample, size in zip(samples, channels, strict=True)]
