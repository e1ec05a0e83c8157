"""Stored pixels through a stored model give the stored scores, whichever backend runs the recurrence.

`python tests/varad_core/test_golden.py write` makes all three anew: on purpose only.
"""

import json
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import run_in_triton_interpreter

from varad_core.inspector import Inspector, score_images
from varad_core.selective_scan import selective_scan

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-3
"""Of every backend, in the scores' unit, the standard deviation of good tokens. Between backends on one
machine it is 1e-5; the rest is for other machines' matrix products."""


def scores_with(backend: str, device: str = "cpu") -> list[float]:
    inspector = Inspector.load(GOLDEN / "model.safetensors", trusted_keys=GOLDEN, device=device, threads=1)
    with np.load(GOLDEN / "images.npz") as stored:
        images = list(stored["images"])
    with patch("varad_core.model.selective_scan", partial(selective_scan, backend=backend)):
        return [round(score, 6) for score in score_images(inspector, images).tolist()]


def stored_scores() -> list[float]:
    scores: list[float] = json.loads((GOLDEN / "scores.json").read_text())
    return scores


def test_the_stored_scores_differ():
    assert np.ptp(stored_scores()) > 3


@pytest.mark.parametrize("backend", ["reference", "chunked", "numba"])
def test_cpu_backends(backend: str):
    assert scores_with(backend) == pytest.approx(stored_scores(), abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed (the extra dev, on Linux)")
def test_triton_in_its_interpreter():
    """Which must be chosen before triton is imported: in a process of its own, this file."""
    assert json.loads(run_in_triton_interpreter(__file__, "triton")) == pytest.approx(
        stored_scores(), abs=TOLERANCE
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("backend", ["triton", "mamba", "chunked"])
def test_cuda_backends(backend: str):
    if backend == "mamba" and find_spec("mamba_ssm") is None:
        pytest.skip("mamba-ssm is not installed")
    assert scores_with(backend, "cuda") == pytest.approx(stored_scores(), abs=TOLERANCE)


def write() -> None:
    from conftest import tiny_config

    from drivers.buttons import render_part
    from varad_core.bundle import ensure_signing_key, public_hex
    from varad_core.train import train

    def picture(index: int, defect: str = "") -> np.ndarray:
        truth = (defect, 0.9 if defect else 0.0)
        return render_part(
            seed=77, index=index, defect_rate=0.0, width_px=96, height_px=96, truth=truth
        ).image_rgb

    inspector = train(
        [picture(index) for index in range(40)],
        tiny_config(image_size_px=64, tokenizer="descriptors"),
        name="golden",
    )
    images = [picture(100), picture(101), picture(102, "chip"), picture(103, "crack"), picture(104, "stain")]
    GOLDEN.mkdir(exist_ok=True)
    key_folder = GOLDEN.parent / "golden-keys"  # the private key is not kept
    key = ensure_signing_key(key_folder)
    for path in key_folder.iterdir():
        path.unlink()
    key_folder.rmdir()
    inspector.save(GOLDEN / "model.safetensors", key)
    (GOLDEN / "golden.pub").write_text(public_hex(key) + "\n")
    np.savez_compressed(GOLDEN / "images.npz", images=np.stack(images))
    (GOLDEN / "scores.json").write_text(json.dumps(scores_with("reference")) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        write()
    else:
        print(json.dumps(scores_with(sys.argv[1])))
