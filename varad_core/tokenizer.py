"""Frozen backbones: an image becomes hierarchies of tokens, fine to coarse.

    name                          source                           hierarchies
    embedded                      `varad_core.embedded_net`        128 at 1/8, 192 at 1/16, no download
    descriptors                   `varad_core.descriptors`         60 at 1/4, 93 at 1/8, no weights at all
    resnet18                      timm, ImageNet                   stages 2 and 3: 128 at 1/8, 256 at 1/16
    dinov2_vits14, dinov2_vitb14  timm, LVD-142M                   blocks 4, 8, 12 after the final norm, 1/14
    dinov3_vits16, dinov3_vitb16  timm, LVD-1689M                  blocks 4, 8, 12 after the final norm, 1/16

Weights come from a local file (`--weights`), from timm's download, or from a bundle. timm is imported only
for its own tokenizers.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from varad_core.config import TokenizerName
from varad_core.descriptors import Descriptors
from varad_core.embedded_net import EmbeddedNet, load_embedded_net
from varad_core.types import WeightsError, one_line

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMM_NAMES = {
    "resnet18": "resnet18",
    "dinov2_vits14": "vit_small_patch14_dinov2.lvd142m",
    "dinov2_vitb14": "vit_base_patch14_dinov2.lvd142m",
    "dinov3_vits16": "vit_small_patch16_dinov3.lvd1689m",
    "dinov3_vitb16": "vit_base_patch16_dinov3.lvd1689m",
}
VIT_BLOCKS = (3, 7, 11)  # the paper's blocks 4, 8 and 12
RESNET_STAGES = (2, 3)

_torchvision_schemas: list[torch.library.Library] = []  # kept alive: a Library takes its definitions with it


def _import_timm() -> Any:
    """timm, also where a CUDA build of torchvision sits beside a CPU torch.

    There torchvision's import ends in `operator torchvision::nms does not exist`; declaring the two missing
    schemas first lets it pass. The operators themselves are not used.
    """
    if not torch.cuda.is_available() and not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _torchvision_schemas.append(library)
    import timm

    return timm


class TimmTokenizer(nn.Module):
    """A ResNet or ViT of timm, frozen; weights rounded to half precision, so that a bundle holds them."""

    def __init__(
        self, name: TokenizerName, image_size_px: int, weights: Path | None, pretrained: bool
    ) -> None:
        super().__init__()
        timm = _import_timm()
        resnet = name == "resnet18"
        options: dict[str, Any] = (
            {"features_only": True, "out_indices": (1, 2, 3)}
            if resnet
            else {"img_size": image_size_px, "num_classes": 0}
        )
        if name.startswith("dinov3"):  # else positions are computed on the CPU again for every image
            options["dynamic_img_size"] = False
        download = pretrained and weights is None
        try:
            net = timm.create_model(TIMM_NAMES[name], pretrained=download, **options)
        except (OSError, RuntimeError) as error:  # no network, no such file on the hub
            problem = "its weights could not be downloaded; give a local file with --weights"
            if not download:
                problem = f"cannot be made for {image_size_px} px; choose another size"
            raise WeightsError(f"tokenizer {name}: {problem} ({one_line(error)})") from error
        if weights is not None:
            _load_file(net, name, weights)
        self.resnet = resnet
        self.net = net.eval().requires_grad_(False)
        if resnet:  # a third faster on CPUs
            self.net.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        with torch.no_grad():
            for tensor in net.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(tensor.half().float())

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) in 0 to 1 -> hierarchies of (B, C_i, H_i, W_i)."""
        images = (images - self.get_buffer("mean")) / self.get_buffer("std")
        if self.resnet:
            images = images.contiguous(memory_format=torch.channels_last)
            return list(self.net(images))[-len(RESNET_STAGES) :]
        return list(
            self.net.forward_intermediates(
                images, indices=list(VIT_BLOCKS), norm=True, intermediates_only=True
            )
        )


Tokenizer = Descriptors | EmbeddedNet | TimmTokenizer


def _load_file(net: nn.Module, name: str, weights: Path) -> None:
    """Load a .safetensors or .pth state dict; unused layers may be present, none may be missing."""
    if not weights.is_file():
        raise WeightsError(f"weights {weights}: no such file")
    try:
        if weights.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(weights)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise many kinds; to the user all mean the same
        raise WeightsError(
            f"weights {weights}: not a readable .safetensors or .pth file ({one_line(error)})"
        ) from error
    state = {key.removeprefix("module.").removeprefix("backbone."): value for key, value in state.items()}
    if name.startswith("dino"):
        from timm.models.vision_transformer import checkpoint_filter_fn

        if name.startswith("dinov2"):  # resamples the position grid to this image size
            state = checkpoint_filter_fn(state, cast(Any, net))
    wanted = net.state_dict()
    missing = [key for key in wanted if key not in state]
    if missing:
        raise WeightsError(
            f"weights {weights} do not fit {name}: {len(missing)} of {len(wanted)} tensors missing, "
            f"e.g. {missing[0]}"
        )
    for key, tensor in wanted.items():
        if state[key].shape != tensor.shape:
            raise WeightsError(
                f"weights {weights} do not fit {name}: {key} is {tuple(state[key].shape)}, "
                f"need {tuple(tensor.shape)}"
            )
    net.load_state_dict({key: state[key] for key in wanted})


def create_tokenizer(
    name: TokenizerName, image_size_px: int, weights: Path | None = None, *, pretrained: bool = True
) -> Tokenizer:
    """A frozen tokenizer.

    Args:
        name: see the table above.
        image_size_px: side of the square it will see.
        weights: local file; None downloads (`pretrained`) or leaves random weights for a bundle to fill.
        pretrained: whether to download when there is no file.

    Raises:
        WeightsError: the file is missing, unreadable or does not fit, or the download failed.
    """
    torch.backends.cudnn.allow_tf32 = False  # training and inspection: float32 means float32
    if name in ("embedded", "descriptors"):
        if weights is not None:
            raise WeightsError(f"tokenizer {name} takes no weights (got {weights}); drop --weights")
        if name == "descriptors":
            return Descriptors()
        return load_embedded_net() if pretrained else EmbeddedNet().requires_grad_(False)
    return TimmTokenizer(name, image_size_px, weights, pretrained)


def tokenizer_tensors(tokenizer: Tokenizer) -> dict[str, Tensor]:
    """What a bundle stores: floating-point tensors in half precision, which loses nothing."""
    return {
        key: value.half() if value.is_floating_point() else value
        for key, value in _stored(tokenizer).state_dict().items()
    }


def load_tokenizer_tensors(tokenizer: Tokenizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `tokenizer_tensors`."""
    _stored(tokenizer).load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    )


def _stored(tokenizer: Tokenizer) -> nn.Module:
    return tokenizer.net if isinstance(tokenizer, TimmTokenizer) else tokenizer


def weights_hash(tokenizer: Tokenizer) -> str:
    """sha256 over the tokenizer's tensors, by name; empty for `descriptors`, which is code."""
    tensors = tokenizer_tensors(tokenizer)
    if not tensors:
        return ""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(tensors[key].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def to_tensor(images_rgb: NDArray[np.uint8]) -> Tensor:
    """uint8 (B, S, S, 3) -> float (B, 3, S, S) in 0 to 1."""
    return torch.from_numpy(images_rgb).permute(0, 3, 1, 2).contiguous().float().div_(255)
