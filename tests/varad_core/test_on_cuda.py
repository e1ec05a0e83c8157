"""What CUDA will run, as far as it can be known without: nothing that a graph captures may touch the host.

Tensors on torch's `meta` device have shapes and no values: what needs a value, or a tensor that was left on
the CPU, shows there as it would on CUDA.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import tiny_config
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from varad_core.bundle import ensure_signing_key
from varad_core.config import TokenizerName
from varad_core.inspector import Inspector, score_images
from varad_core.scoring import GaussianScoring
from varad_core.tokenizer import create_tokenizer
from varad_core.train import train


class OnTheHost(TorchDispatchMode):
    """Collects the operations that read or make a tensor on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        touched = [x for x in (*args, result) if isinstance(x, torch.Tensor)]
        if any(x.device.type == "cpu" for x in touched):
            self.seen.append(str(func))
        return result


@pytest.mark.parametrize(
    ("name", "side_px"),
    [("embedded", 64), ("descriptors", 64), ("resnet18", 64), ("dinov2_vits14", 70), ("dinov3_vits16", 64)],
)
def test_no_tokenizer_touches_the_host(name: str, side_px: int) -> None:
    tokenizer = create_tokenizer(cast(TokenizerName, name), side_px, pretrained=False).eval().to("meta")
    images = torch.zeros(1, 3, side_px, side_px, device="meta")
    with torch.inference_mode(), OnTheHost() as host:
        hierarchies = tokenizer(images)
    assert host.seen == []
    assert {grid.device.type for grid in hierarchies} == {"meta"}


def test_no_step_from_pixels_to_map_touches_the_host(bundle_path: Path, keys: Path) -> None:
    inspector = Inspector.load(bundle_path, trusted_keys=keys, device="meta")
    side = inspector.input_size_px
    tiles = torch.zeros(1, side, side, 3, dtype=torch.uint8, device="meta")
    with torch.inference_mode(), patch("torch.autocast", lambda *_, **__: nullcontext()), OnTheHost() as host:
        maps = inspector._forward(tiles)
    assert host.seen == []
    assert maps.device.type == "meta"


def test_an_inspector_takes_its_scoring_to_its_device(bundle_path: Path, keys: Path) -> None:
    """As `train` makes it, which `load` is not the way of."""
    loaded = Inspector.load(bundle_path, trusted_keys=keys, device="cpu")
    assert isinstance(loaded.scoring, GaussianScoring)
    made = Inspector(
        loaded.config, loaded.alignment, loaded.tokenizer, loaded.model, loaded.scoring, loaded.limits,
        loaded.provenance, "meta",
    )  # fmt: skip
    assert isinstance(made.scoring, GaussianScoring)
    assert {value.device.type for value in made.scoring.values.values()} == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_trained_on_cuda_is_saved_and_scores_the_same_when_loaded(
    good_images: list[NDArray[np.uint8]], keys: Path, tmp_path: Path
) -> None:
    inspector = train(good_images, tiny_config(), name="tiny", device="cuda")
    inspector.save(tmp_path / "m.safetensors", ensure_signing_key(keys))
    for device, tolerance in (("cuda", 1e-5), ("cpu", 0.02)):
        again = Inspector.load(tmp_path / "m.safetensors", trusted_keys=keys, device=device)
        assert score_images(again, good_images[:4]) == pytest.approx(
            score_images(inspector, good_images[:4]), abs=tolerance
        )
