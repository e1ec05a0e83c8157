from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from drivers.buttons import RenderedPart, render_part
from varad_core.inspector import Inspector, score_images

Image = NDArray[np.uint8]
Render = Callable[..., RenderedPart]
DEMO = Path(__file__).parents[2] / "station" / "demo"


@pytest.fixture(scope="module")
def demo() -> Inspector:
    return Inspector.load(DEMO / "model.safetensors", trusted_keys=DEMO, device="cpu", threads=1)


def test_a_gross_defect_scores_above_every_good_part(trained: Inspector, part: Render) -> None:
    good = score_images(trained, [part(index).image_rgb for index in range(100, 112)])
    bad = score_images(trained, [part(index, "chip", 1.0).image_rgb for index in range(200, 206)])
    assert bad.min() > good.max()


def test_result_covers_the_image_at_its_own_small_size(trained: Inspector, part: Render) -> None:
    result = trained.inspect(part(1).image_rgb)
    assert result.anomaly_map.shape == (48, 48)
    assert result.anomaly_map.dtype == np.float32
    assert np.isfinite(result.anomaly_map).all()
    assert set(result.timings_ms) == {"align", "tokenize", "predict", "score"}


def test_inspection_is_repeatable_and_leaves_the_image_alone(trained: Inspector, part: Render) -> None:
    image = part(2).image_rgb
    before = image.copy()
    assert trained.inspect(image).score == trained.inspect(image).score
    assert np.array_equal(image, before)


def test_the_way_of_a_gpu_gives_nearly_the_same_scores_on_a_cpu(trained: Inspector, part: Render) -> None:
    """CUDA's graph captures `_forward`; what half precision does to the tokens shows on a CPU as well."""
    for index, defect in enumerate(("", "chip", "crack")):
        aligned = trained.align(part(index, defect, 0.9).image_rgb)
        tiles = cv2.resize(aligned.image_rgb, (trained.input_size_px,) * 2)[None]
        with torch.inference_mode():
            single = trained._tile_maps(tiles, dict.fromkeys(("tokenize", "predict", "score"), 0.0))
            half = trained._forward(torch.from_numpy(tiles))
        scores = [float(trained.scoring.scores(maps)[0]) for maps in (single, half)]
        assert scores[1] == pytest.approx(scores[0], abs=0.02)
        assert not torch.equal(single, half)


@pytest.mark.parametrize("shape", [(192, 160), (100, 400), (512, 512), (17, 16)])
def test_any_image_size_is_scored(trained: Inspector, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    result = trained.inspect(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    assert np.isfinite(result.score)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((8, 64, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused_with_their_shape(trained: Inspector, image: Image) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\).*got") as error:
        trained.inspect(image)
    assert str(image.shape) in str(error.value)


def test_demo_bundle_is_signed_small_and_judges_fresh_parts(demo: Inspector) -> None:
    assert (DEMO / "model.safetensors").stat().st_size <= 12e6
    assert not (DEMO / "station.ed25519").exists()

    def score(index: int, defect: str) -> float:
        part = render_part(
            seed=31337,
            index=index,
            defect_rate=0.0,
            width_px=512,
            height_px=512,
            truth=(defect, 0.6 if defect else 0.0),
        )
        return demo.inspect(part.image_rgb).score

    good = [score(index, "") for index in range(6)]
    bad = [
        score(50 + index, defect) for index, defect in enumerate(("scratch", "crack", "stain", "extra_hole"))
    ]
    assert max(good) < demo.limits.reject < min(bad)


def test_demo_map_points_at_the_defect(demo: Inspector) -> None:
    for index, defect in enumerate(("scratch", "stain", "contamination")):
        part = render_part(
            seed=31338, index=index, defect_rate=0.0, width_px=512, height_px=512, truth=(defect, 0.7)
        )
        anomaly_map = cv2.resize(demo.inspect(part.image_rgb).anomaly_map, (512, 512))
        near = cv2.dilate(part.mask.astype(np.uint8), np.ones((41, 41), np.uint8)).astype(bool)
        assert near.reshape(-1)[int(anomaly_map.argmax())]
        assert anomaly_map.max() > demo.limits.reject
