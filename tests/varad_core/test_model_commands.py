import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from drivers.buttons import RenderedPart
from station.model_commands import add_parsers
from varad_core.evaluate import Figures
from varad_core.inspector import Inspector
from varad_core.types import VaradError

Render = Callable[..., RenderedPart]


def _run(*argv: object) -> int:
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers(required=True))
    arguments = parser.parse_args([str(value) for value in argv])
    status: int = arguments.func(arguments)
    return status


def _write(folder: Path, parts: list[RenderedPart]) -> None:
    folder.mkdir(parents=True)
    for index, one in enumerate(parts):
        cv2.imwrite(str(folder / f"{index:02d}.png"), np.ascontiguousarray(one.image_rgb[..., ::-1]))


@pytest.fixture
def data(tmp_path: Path, part: Render) -> Path:
    root = tmp_path / "set"
    _write(root / "train" / "good", [part(index) for index in range(9)])
    _write(root / "test" / "good", [part(index) for index in range(20, 23)])
    _write(root / "test" / "chip", [part(index, "chip", 1.0) for index in range(30, 33)])
    return root


SMALL = ("--image-size", 96, "--steps", 2)


def test_train_writes_a_bundle_that_the_station_loads(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, keys = tmp_path / "model.safetensors", tmp_path / "keys"
    assert (
        _run(
            "train",
            "--good",
            data / "train" / "good",
            "--recipe",
            "btn",
            "--out",
            out,
            "--keys",
            keys,
            *SMALL,
        )
        == 0
    )
    inspector = Inspector.load(out, trusted_keys=keys, device="cpu")
    assert inspector.model_name == "btn"
    printed = capsys.readouterr().out
    assert inspector.model_id in printed
    assert "of good parts above the reject limit" in printed
    assert "63 more good parts would support 10%" in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--good": "missing"}, "no such folder"),
        ({"--out": "no/such/folder/m.safetensors"}, "does not exist"),
        ({"--image-size": "30"}, "image_size_px must be"),
        ({"--tokenizer": "resnet18", "--weights": "none.safetensors"}, "no such file"),
        ({"--recipe": None}, "--recipe"),
        ({"--steps": "0"}, "nothing is trained"),
        ({"--false-reject": "0.02"}, "needs 149 held-out good parts, 372 in all"),
        ({"--false-reject": "2"}, "false_reject_target must be between 0 and 1"),
        ({"--holdout": "0"}, "holdout_share must be between 0 and 1"),
    ],
)
def test_wrong_arguments_say_what_to_do_and_write_nothing(
    data: Path, tmp_path: Path, changes: dict[str, str | None], message: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    options: dict[str, object] = {
        "--good": data / "train" / "good", "--recipe": "btn", "--out": out / "m.safetensors",
        "--keys": tmp_path / "k", "--steps": 2,
    }  # fmt: skip
    options |= {
        key: tmp_path / value if value and key in ("--good", "--out", "--weights") else value
        for key, value in changes.items()
    }
    argv = [item for pair in options.items() if pair[1] is not None for item in pair]
    with pytest.raises(VaradError, match=message) as error:
        _run("train", *argv)
    assert "\n" not in str(error.value)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("preset", ["station", "paper"])
def test_evaluate_prints_its_figures_as_json_last(
    data: Path, capsys: pytest.CaptureFixture[str], preset: str
) -> None:
    assert _run("evaluate", data, "--preset", preset, "--image-size", 64, "--steps", 2) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures) == {*Figures.__dataclass_fields__, "fit_s", "parameters"}
    assert figures["pixel_auroc"] is None
    assert 0 <= figures["image_auroc"] <= 1
