from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import tiny_config
from numpy.typing import NDArray

from drivers.buttons import RenderedPart
from varad_core.datasets import open_dataset
from varad_core.evaluate import evaluate, measure
from varad_core.types import AnomalyResult

Render = Callable[..., RenderedPart]


def _quiet(stage: str, done: int, total: int, loss: float) -> None:
    pass


def _save(folder: Path, images: list[NDArray[np.uint8]]) -> None:
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / f"{index:02d}.png"), image)


def _labelled_set(root: Path, render: Render, masks: bool) -> Path:
    _save(root / "train" / "good", [render(index).image_rgb[..., ::-1] for index in range(12)])
    _save(root / "test" / "good", [render(index).image_rgb[..., ::-1] for index in range(20, 25)])
    bad = [render(index, "stain", 1.0) for index in range(30, 34)]
    _save(root / "test" / "stain", [one.image_rgb[..., ::-1] for one in bad])
    if masks:
        (root / "ground_truth" / "stain").mkdir(parents=True)
        for index, one in enumerate(bad):
            mask = one.mask if index else np.zeros_like(one.mask)  # the first is empty: it must be left out
            path = root / "ground_truth" / "stain" / f"{index:02d}_mask.png"
            cv2.imwrite(str(path), mask.astype(np.uint8) * 255)
    return root


PIXEL = ("pixel_auroc", "pixel_ap", "pixel_max_f1", "aupro", "aupro_binned")


@pytest.mark.parametrize("masks", [True, False])
def test_evaluate_gives_every_figure(tmp_path: Path, part: Render, masks: bool) -> None:
    dataset = open_dataset(_labelled_set(tmp_path / "set", part, masks))
    figures, inspector = evaluate(dataset, tiny_config(), weights=None, limit_train=10, progress=_quiet)
    assert inspector.provenance["good_parts"] == 10
    values = asdict(figures)
    assert values["image_auroc"] == values["image_ap"] == values["image_max_f1"] == 1.0
    if masks:
        assert all(0 < values[name] <= 1 for name in PIXEL)
        assert values["pixel_auroc"] > 0.85
        assert values["aupro"] == pytest.approx(values["aupro_binned"], abs=3e-4)
    else:
        assert all(values[name] is None for name in PIXEL)


def test_a_method_that_returns_the_mask_is_perfect(tmp_path: Path, part: Render) -> None:
    dataset = open_dataset(_labelled_set(tmp_path / "set", part, masks=True))
    masks = iter([part(index, "stain", 1.0).mask for index in range(30, 34)])
    defects = iter([bool(one.defect) for one in dataset.test])

    def inspect(image_rgb: NDArray[np.uint8]) -> AnomalyResult:
        found = next(masks) if next(defects) else np.zeros(image_rgb.shape[:2], np.bool_)
        return AnomalyResult(float(found.any()), found.astype(np.float32))

    values = asdict(measure(dataset, inspect, _quiet))
    assert values["image_auroc"] == 1.0
    assert all(values[name] > 0.99 for name in ("pixel_auroc", "pixel_ap", "aupro"))
