"""The net behind the `embedded` tokenizer: small, convolutional, trained on procedural images alone.

It learned to foretell stages 2 and 3 of a ResNet-50 v2 (`varad_core.pretraining`).
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varad_core.types import WeightsError

WEIGHTS = Path(__file__).with_name("embedded_net.safetensors")
WEIGHTS_SHA256 = "a9607c1ec805f9aaa9c75a9042a58aa4f1679f6affcbc2e62f05fffe795cfac7"
FRONT, FINE, COARSE = 48, 128, 192  # channels at 1/4, 1/8 and 1/16


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), rectified."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, 1, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class EmbeddedNet(nn.Module):
    """1.5 GFLOP at 256 px: two hierarchies, FINE channels at 1/8, COARSE at 1/16; norms are folded in."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(
            nn.Conv2d(3, 32, 5, 2, 2),
            nn.ReLU(),
            nn.Conv2d(32, FRONT, 3, 2, 1),
            nn.ReLU(),
            ResidualBlock(FRONT),
        )
        self.fine = nn.Sequential(
            nn.Conv2d(FRONT, FINE, 3, 2, 1), nn.ReLU(), ResidualBlock(FINE), ResidualBlock(FINE)
        )
        self.coarse = nn.Sequential(nn.Conv2d(FINE, COARSE, 3, 2, 1), nn.ReLU(), ResidualBlock(COARSE))
        self.fine_head, self.coarse_head = nn.Conv2d(FINE, FINE, 1), nn.Conv2d(COARSE, COARSE, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def stages(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, S, S) in 0 to 1 -> FRONT, FINE and COARSE channels at 1/4, 1/8 and 1/16."""
        front = self.front((4 * images - 2).contiguous(memory_format=torch.channels_last))
        fine = self.fine(front)
        return front, fine, self.coarse(fine)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) in 0 to 1 -> [(B, FINE, S/8, S/8), (B, COARSE, S/16, S/16)]."""
        _, fine, coarse = self.stages(images)
        return [self.fine_head(fine).contiguous(), self.coarse_head(coarse).contiguous()]


def load_embedded_net(path: Path = WEIGHTS, sha256: str = WEIGHTS_SHA256) -> EmbeddedNet:
    """The trained net, frozen.

    Raises:
        WeightsError: the file is missing or not the one this program was released with.
    """
    from safetensors.torch import load

    if not path.is_file():
        raise WeightsError(f"weights {path}: no such file; install the program again")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise WeightsError(
            f"weights {path}: sha256 {found[:12]}..., need {sha256[:12]}...; install the program again"
        )
    net = EmbeddedNet()
    net.load_state_dict({name: tensor.float() for name, tensor in load(data).items()})
    return net.eval().requires_grad_(False)
