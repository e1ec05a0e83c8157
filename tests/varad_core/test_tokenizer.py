from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from varad_core.config import TokenizerName
from varad_core.tokenizer import (
    TIMM_NAMES,
    _import_timm,
    create_tokenizer,
    load_tokenizer_tensors,
    to_tensor,
    tokenizer_tensors,
    weights_hash,
)
from varad_core.types import WeightsError

SMALL = {
    "resnet18": (64, [(128, 8), (256, 4)]),
    "dinov2_vits14": (70, [(384, 5)] * 3),
    "dinov3_vits16": (64, [(384, 4)] * 3),
}


@pytest.fixture(scope="module")
def weight_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Randomly initialised weights of the true shapes, saved as a user's local files would be."""
    timm = _import_timm()
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for name in SMALL:
        torch.manual_seed(1)
        net = timm.create_model(TIMM_NAMES[name], pretrained=False)
        suffix = ".pth" if name == "dinov2_vits14" else ".safetensors"
        files[name] = folder / f"{name}{suffix}"
        if suffix == ".pth":
            torch.save(net.state_dict(), files[name])
        else:
            save_file({key: value.contiguous() for key, value in net.state_dict().items()}, files[name])
    return files


@pytest.mark.parametrize("name", list(SMALL))
def test_local_weights_give_the_documented_hierarchies(name: str, weight_files: dict[str, Path]) -> None:
    size, expected = SMALL[name]
    tokenizer = create_tokenizer(cast(TokenizerName, name), size, weight_files[name])
    hierarchies = tokenizer(torch.rand(2, 3, size, size))
    assert [(grid.shape[1], grid.shape[2]) for grid in hierarchies] == expected
    assert all(grid.shape[2] == grid.shape[3] and len(grid) == 2 for grid in hierarchies)
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())


@pytest.mark.parametrize("name", ["resnet18", "dinov3_vits16"])
def test_half_precision_storage_is_exact(name: str, weight_files: dict[str, Path]) -> None:
    size, _ = SMALL[name]
    tokenizer = create_tokenizer(cast(TokenizerName, name), size, weight_files[name])
    again = create_tokenizer(cast(TokenizerName, name), size, pretrained=False)
    assert weights_hash(again) != weights_hash(tokenizer)
    load_tokenizer_tensors(again, tokenizer_tensors(tokenizer))
    images = torch.rand(1, 3, size, size)
    for one, two in zip(tokenizer(images), again(images), strict=True):
        assert torch.equal(one, two)
    assert weights_hash(again) == weights_hash(tokenizer)


def test_the_final_norm_is_applied_to_every_vit_block(weight_files: dict[str, Path]) -> None:
    tokenizer = create_tokenizer("dinov2_vits14", 70, weight_files["dinov2_vits14"])
    for grid in tokenizer(torch.rand(1, 3, 70, 70)):
        assert float(grid.mean(1).abs().max()) < 1e-4  # random weights: the norm's weight is 1, its bias 0
        assert torch.allclose(grid.var(1, unbiased=False), torch.ones(()), atol=1e-2)


def test_pretrained_resnet_loads_strictly_and_tells_textures_apart(shared_weights: Path) -> None:
    tokenizer = create_tokenizer("resnet18", 64, shared_weights)
    fine, coarse = tokenizer(torch.rand(1, 3, 64, 64))
    assert fine.shape == (1, 128, 8, 8)
    assert coarse.shape == (1, 256, 4, 4)


def test_weights_errors_name_the_file(tmp_path: Path, weight_files: dict[str, Path]) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x00" * 64)
    cases = [
        ("resnet18", tmp_path / "none.pth", "no such file"),
        ("resnet18", damaged, "not a readable"),
        ("resnet18", weight_files["dinov3_vits16"], "tensors missing"),
        ("dinov3_vitb16", weight_files["dinov3_vits16"], "need"),
        ("embedded", damaged, "takes no weights"),
    ]
    for name, path, message in cases:
        with pytest.raises(WeightsError, match=message) as error:
            create_tokenizer(cast(TokenizerName, name), 64, path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_embedded_net_has_its_shapes_and_survives_half_precision() -> None:
    tokenizer = create_tokenizer("embedded", 96)
    image = torch.rand(1, 3, 96, 96)
    fine, coarse = tokenizer(image)
    assert (fine.shape, coarse.shape) == ((1, 128, 12, 12), (1, 192, 6, 6))
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())
    again = create_tokenizer("embedded", 96, pretrained=False)
    assert weights_hash(again) != weights_hash(tokenizer)
    load_tokenizer_tensors(again, tokenizer_tensors(tokenizer))
    assert weights_hash(again) == weights_hash(tokenizer)
    assert torch.equal(again(image)[0], fine)


def test_descriptors_have_their_shapes_and_are_finite_on_flat_images() -> None:
    tokenizer = create_tokenizer("descriptors", 96)
    for image in (torch.zeros(1, 3, 96, 96), torch.ones(1, 3, 96, 96), torch.rand(1, 3, 96, 96)):
        fine, coarse = tokenizer(image)
        assert fine.shape[2:] == (24, 24)
        assert coarse.shape[2:] == (12, 12)
        assert torch.isfinite(fine).all()
        assert torch.isfinite(coarse).all()
    assert tokenizer_tensors(tokenizer) == {}
    assert weights_hash(tokenizer) == ""


def test_descriptors_know_bright_from_dark_and_across_from_along() -> None:
    tokenizer = create_tokenizer("descriptors", 64)
    line = torch.full((1, 3, 64, 64), 0.5)
    line[:, :, 32, 16:48] = 0.8
    variants = [line, 1 - line, line.transpose(2, 3)]
    tokens = [tokenizer(image)[0][0, :, 7:9, 7:9].flatten() for image in variants]
    for i in range(3):
        for j in range(i):
            assert float((tokens[i] - tokens[j]).norm()) > 0.3 * float(tokens[i].norm())


def test_descriptors_ignore_overall_brightness_but_not_colour() -> None:
    tokenizer = create_tokenizer("descriptors", 64)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 64, 64, generator=generator) * 0.3 + 0.3
    texture = tokenizer(image)[0]
    assert torch.allclose(tokenizer(image + 0.1)[0], texture, atol=0.02)
    red = image * torch.tensor([1.2, 0.9, 0.9]).view(1, 3, 1, 1)
    assert float((tokenizer(red)[1] - tokenizer(image)[1]).abs().max()) > 0.05


def test_images_become_floats_channels_first() -> None:
    images = np.zeros((1, 4, 5, 3), np.uint8)
    images[0, 1, 2] = (255, 51, 0)
    tensor = to_tensor(images)
    assert tensor.shape == (1, 3, 4, 5)
    assert tensor[0, :, 1, 2].tolist() == pytest.approx([1.0, 0.2, 0.0])
