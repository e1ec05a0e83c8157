import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from varad_core.embedded_net import EmbeddedNet, load_embedded_net
from varad_core.pretraining.__main__ import main
from varad_core.pretraining.distill import distill, explained, fold_norms, with_norms
from varad_core.pretraining.images import render_image
from varad_core.pretraining.targets import Components, Targets, render_batch
from varad_core.pretraining.teacher import ResNet50V2
from varad_core.tokenizer import to_tensor
from varad_core.types import WeightsError

TEACHER = Path(__file__).parents[2].parent / "shared" / "weights" / "resnet50v2_stages1to3_fp16.safetensors"


@pytest.fixture(scope="module")
def teacher() -> ResNet50V2:
    if not TEACHER.is_file():
        pytest.skip(f"no pretrained weights beside the repository ({TEACHER.name})")
    return ResNet50V2(TEACHER)


@given(st.integers(0, 2**32 - 1), st.integers(0, 10_000))
@hypothesis_settings(max_examples=25)
def test_an_image_is_its_seed_and_index_and_never_blank(seed: int, index: int) -> None:
    image = render_image(seed, index, 64)
    assert image.shape == (64, 64, 3)
    assert image.dtype == np.uint8
    assert np.array_equal(image, render_image(seed, index, 64))
    assert not np.array_equal(image, render_image(seed, index + 1, 64))


def test_images_differ_in_kind() -> None:
    images = np.stack([render_image(0, index, 96) for index in range(24)]).astype(np.float32)
    means, contrasts = images.mean((1, 2, 3)), images.std((1, 2, 3))
    assert means.std() > 20
    assert contrasts.max() > 4 * contrasts.min()


def test_folding_the_norms_changes_nothing() -> None:
    torch.manual_seed(0)
    net = EmbeddedNet()
    names = set(net.state_dict())
    for stage in (net.front, net.fine, net.coarse):
        with_norms(stage)
    images = torch.rand(4, 3, 64, 64)
    net(images)  # moves the norms' statistics
    net.eval().requires_grad_(False)
    before = net(images)
    for stage in (net.front, net.fine, net.coarse):
        fold_norms(stage)
    assert set(net.state_dict()) == names
    for one, two in zip(before, net(images), strict=True):
        assert torch.allclose(one, two, atol=1e-4)


def test_components_keep_order_lift_the_weak_and_have_unit_power() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.1, 8.0, 1.0, 3.0])
    tokens = torch.randn(4000, 4, generator=generator) * spread + 5
    grid = Components(tokens, 3)(tokens.t().reshape(1, 4, 40, 100))
    power = grid.square().mean((0, 2, 3))
    assert float(power.mean()) == pytest.approx(1, abs=1e-3)
    assert power.tolist() == sorted(power.tolist(), reverse=True)
    assert float(power[0] / power[2]) == pytest.approx(8.0, rel=0.1)  # the root of 64


def test_a_few_steps_of_distillation_learn_and_go_on_after_an_interruption(
    teacher: ResNet50V2, tmp_path: Path
) -> None:
    images = render_batch(3, 0, 72)[:, 96:160, 96:160].copy()
    stages = [
        torch.cat(grids) for grids in zip(*(teacher(to_tensor(image[None])) for image in images), strict=True)
    ]
    fine, coarse = (
        Components(stage.permute(0, 2, 3, 1).flatten(0, 2), count)(stage).half().numpy()
        for stage, count in zip(stages, (128, 192), strict=True)
    )
    targets = Targets(images, fine, coarse)
    net, _ = distill(teacher, targets, tmp_path, seed=0, steps=40)
    learned = explained(net, targets, np.arange(8))  # the images that are not held out
    assert learned["fine"] > 0.1
    assert learned["coarse"] > 0.1
    again, _ = distill(teacher, targets, tmp_path, seed=0, steps=40)  # nothing left to do
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_the_teacher_is_the_published_net(teacher: ResNet50V2) -> None:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    fine, coarse = teacher(images)
    assert (fine.shape, coarse.shape) == ((1, 512, 8, 8), (1, 1024, 4, 4))
    assert teacher.first_layers(images).shape == (1, teacher.FIRST_CHANNELS, 16, 16)
    assert torch.isfinite(coarse).all()
    assert 0.02 < float(fine.mean()) < 2  # normed and rectified: neither dead nor run away


def test_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.safetensors"
    assert main(["--teacher", str(missing), "--work", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err == f"pretraining: teacher {missing}: no such file; name it with --teacher\n"
    )
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x00" * 64)
    assert main(["--teacher", str(damaged), "--work", str(tmp_path)]) == 2
    assert str(damaged) in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--teacher", str(damaged), "--images", "129"])


def test_other_weights_than_the_released_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        load_embedded_net(tmp_path / "none.safetensors")
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(b"not these")
    with pytest.raises(WeightsError, match=hashlib.sha256(b"not these").hexdigest()[:12]):
        load_embedded_net(changed)
