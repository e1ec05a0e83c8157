import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from drivers.buttons import RenderedPart, render_part
from varad_core.bundle import ensure_signing_key
from varad_core.config import PredictorConfig, ScoringConfig, TrainingConfig, VaradConfig
from varad_core.inspector import Inspector
from varad_core.train import train

SHARED = Path(__file__).parents[2].parent / "shared"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def part() -> Callable[..., RenderedPart]:
    """Rendered part `index`; `defect` and `severity` to damage it."""

    def render(index: int, defect: str = "", severity: float = 0.0, side_px: int = 192) -> RenderedPart:
        return render_part(
            seed=5,
            index=index,
            defect_rate=0.0,
            width_px=side_px,
            height_px=side_px,
            truth=(defect, severity),
        )

    return render


@pytest.fixture(scope="session")
def good_images(part: Callable[..., RenderedPart]) -> list[NDArray[np.uint8]]:
    return [part(index).image_rgb for index in range(24)]


def tiny_config(**changes: object) -> VaradConfig:
    settings: dict[str, object] = {
        "image_size_px": 96,
        "predictor": PredictorConfig(d_model=16, layers=1, d_state=4, dt_rank=2),
        "training": TrainingConfig(seed=3, steps=12, batch_size=2),
        "scoring": ScoringConfig(clusters=4, rank=8),
    }
    return VaradConfig(**(settings | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def trained(good_images: list[NDArray[np.uint8]]) -> Inspector:
    torch.set_num_threads(1)
    return train(good_images, tiny_config(), name="tiny")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    ensure_signing_key(folder)
    return folder


@pytest.fixture
def bundle_path(trained: Inspector, keys: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    trained.save(path, ensure_signing_key(keys))
    return path


def run_in_triton_interpreter(file: str, *arguments: str) -> str:
    """What a file prints where Triton's interpreter was chosen before triton is imported."""
    run = subprocess.run(
        [sys.executable, "-W", "error", file, *arguments],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=85,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    path = SHARED / "weights" / "resnet18_layers1to3.safetensors"
    if not path.is_file():
        pytest.skip(f"no pretrained weights beside the repository ({path.name})")
    return path
