from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks import anomalib_peers
from benchmarks.anomalib_peers import AnomalibMethod
from benchmarks.peers import create_method
from varad_core.config import FramingName
from varad_core.tokenizer import to_tensor

SHARED = Path(__file__).parents[2].parent / "shared"
pytestmark = pytest.mark.filterwarnings("ignore")  # of anomalib's own dependencies

Create = Callable[..., AnomalibMethod]


@pytest.fixture
def create(monkeypatch: pytest.MonkeyPatch) -> Create:
    pytest.importorskip("anomalib", reason="anomalib is installed by `make bench` only")
    weights = SHARED / "weights" / "resnet18_layers1to3.safetensors"
    if not weights.is_file():
        pytest.skip(f"no pretrained weights beside the repository ({weights.name})")
    torch.set_num_threads(1)
    monkeypatch.setattr(anomalib_peers, "STUDENT_STEPS", 20)
    monkeypatch.setattr(anomalib_peers, "STUDENT_BATCH", 8)

    def make(name: str, seed: int = 0, framing: FramingName = "square") -> AnomalibMethod:
        method = create_method(name, 64, weights, seed, framing)
        assert isinstance(method, AnomalibMethod)
        return method

    return make


def _textures(n: int, first: int = 0) -> list[NDArray[np.uint8]]:
    return [
        np.random.default_rng(index).integers(90, 110, (64, 80, 3)).astype(np.uint8)
        for index in range(first, first + n)
    ]


def _damaged(image_rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    damaged = image_rgb.copy()
    damaged[10:30, 50:75] = (250, 10, 10)
    return damaged


@pytest.mark.parametrize("name", ["patchcore", "padim", "stfpm"])
def test_the_backbone_is_the_tokenizer(create: Create, name: str) -> None:
    method = create(name)
    image = _textures(1)[0][:, :64]
    extract = method.model.teacher_model if name == "stfpm" else method.model.feature_extractor
    theirs = extract(method.normalised(image[None]))
    theirs = {layer: grid for layer, grid in theirs.items() if layer in anomalib_peers.LAYERS}
    for grid, (layer, found) in zip(method.tokenizer(to_tensor(image[None])), theirs.items(), strict=True):
        assert torch.allclose(grid, found, atol=1e-4), layer  # another memory layout, another order of sums


@pytest.mark.parametrize(
    ("name", "framing", "shape"),
    [
        ("patchcore", "square", (64, 64)),
        ("patchcore", "tiles", (64, 80)),
        ("patchcore+align", "square", (64, 64)),
        ("padim", "square", (64, 64)),
        ("padim", "tiles", (64, 80)),
        ("stfpm", "square", (64, 64)),
    ],
)
def test_a_defect_stands_out_where_it_is(
    create: Create, name: str, framing: FramingName, shape: tuple[int, int]
) -> None:
    method = create(name, framing=framing)
    method.fit(_textures(12))
    assert method.fitted_numbers() > 0
    good = _textures(1, first=50)[0]
    bad = method.inspect(_damaged(good))
    assert bad.score > 1.2 * method.inspect(good).score
    assert bad.anomaly_map.shape == shape
    row, column = np.unravel_index(bad.anomaly_map.argmax(), shape)
    near = 8 if name == "stfpm" else 0  # within a token of it
    assert 10 - near <= row < 30 + near
    assert 50 - near <= column * 80 / shape[1] < 75


@pytest.mark.parametrize("name", ["patchcore", "padim", "stfpm"])
def test_the_seed_decides(create: Create, name: str) -> None:
    def score(seed: int) -> float:
        method = create(name, seed)
        method.fit(_textures(8))
        return method.inspect(_damaged(_textures(1, first=50)[0])).score

    assert score(3) == score(3)
    assert score(3) != score(4)


@pytest.mark.parametrize("name", ["patchcore", "padim"])
def test_what_is_ignored_changes_nothing(create: Create, name: str) -> None:
    strips = [np.tile(image, (1, 3, 1)) for image in _textures(12)]
    ignored = np.zeros(strips[0].shape[:2], np.bool_)
    ignored[:, :120] = True
    method = create(name, framing="tiles")
    method.fit(strips, ignored)
    good = np.tile(_textures(1, first=50)[0], (1, 3, 1))
    inside, outside = good.copy(), good.copy()
    inside[10:30, 20:60] = outside[10:30, 180:220] = (250, 10, 10)
    assert method.inspect(inside).score == method.inspect(good).score
    found = method.inspect(outside)
    assert found.score > 1.2 * method.inspect(good).score
    assert found.anomaly_map.argmax(axis=1).min() >= 120 * found.anomaly_map.shape[1] // 240
