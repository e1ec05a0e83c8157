"""The teacher: ResNet-50 v2 up to stage 3, with the weights of the ONNX model zoo (Apache-2.0).

He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varad_core.tokenizer import IMAGENET_MEAN, IMAGENET_STD
from varad_core.types import WeightsError

BLOCKS = (3, 4, 6)
EPSILON = 1e-5


class ResNet50V2(nn.Module):
    """Frozen; each convolution has the weights `stage<k>_conv<i>_weight`, each norm `<name>_gamma` and so on.

    Raises:
        WeightsError: the file is missing, unreadable or lacks a tensor.
    """

    FIRST_CHANNELS = 128

    def __init__(self, path: Path) -> None:
        super().__init__()
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not path.is_file():
            raise WeightsError(f"teacher {path}: no such file; name it with --teacher")
        try:
            self.tensors: Mapping[str, Tensor] = {
                name: tensor.float() for name, tensor in load_file(path).items()
            }
        except SafetensorError as error:
            raise WeightsError(f"teacher {path}: not a safetensors file ({error}); get it again") from error
        if "stage3_conv18_weight" not in self.tensors:
            raise WeightsError(f"teacher {path}: no stage3_conv18_weight; need ResNet-50 v2, stages 1 to 3")

    @torch.inference_mode()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) in 0 to 1 -> stage 2 rectified (B, 512, S/8, S/8), stage 3 (B, 1024, S/16, S/16)."""
        hidden = self._pooled(images)
        stages = []
        for stage, blocks in enumerate(BLOCKS, 1):
            for block in range(blocks):
                hidden = self._block(
                    f"stage{stage}_", block, hidden, stride=2 if block == 0 < stage - 1 else 1
                )
            stages.append(hidden)
        return F.relu(self._norm("stage3_batchnorm0", stages[1])), stages[2]

    @torch.no_grad()
    def first_layers(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in 0 to 1 -> (B, FIRST_CHANNELS, S/4, S/4): stem and the first block's 3x3."""
        near = F.relu(self._norm("stage1_batchnorm0", self._pooled(images)))
        narrow = F.relu(self._norm("stage1_batchnorm1", self._conv("stage1_conv0", near)))
        wide = F.relu(self._norm("stage1_batchnorm2", self._conv("stage1_conv1", narrow)))
        return torch.cat([near, wide], dim=1)

    def _pooled(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        hidden = self._norm("batchnorm0", (images - mean) / std)  # whose gamma is fixed at 1
        hidden = self._conv("conv0", hidden.contiguous(memory_format=torch.channels_last), stride=2)
        return F.max_pool2d(F.relu(self._norm("batchnorm1", hidden)), 3, 2, 1)

    def _block(self, stage: str, block: int, hidden: Tensor, stride: int) -> Tensor:
        norm, conv = 3 * block, 3 * block + (block > 0)
        active = F.relu(self._norm(f"{stage}batchnorm{norm}", hidden))
        shortcut = hidden if block else self._conv(f"{stage}conv3", active, stride)
        branch = self._conv(f"{stage}conv{conv}", active)
        branch = F.relu(self._norm(f"{stage}batchnorm{norm + 1}", branch))
        branch = self._conv(f"{stage}conv{conv + 1}", branch, stride)
        branch = F.relu(self._norm(f"{stage}batchnorm{norm + 2}", branch))
        return shortcut + self._conv(f"{stage}conv{conv + 2}", branch)

    def _conv(self, name: str, hidden: Tensor, stride: int = 1) -> Tensor:
        weight = self.tensors[f"{name}_weight"]
        return F.conv2d(hidden, weight, stride=stride, padding=weight.shape[2] // 2)

    def _norm(self, name: str, hidden: Tensor) -> Tensor:
        mean, var, weight, bias = self._statistics(name)
        return F.batch_norm(hidden, mean, var, weight, bias, eps=EPSILON)

    def _statistics(self, norm: str) -> list[Tensor]:
        return [self.tensors[f"{norm}_{part}"] for part in ("running_mean", "running_var", "gamma", "beta")]
