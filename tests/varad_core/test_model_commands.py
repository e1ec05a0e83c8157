import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import varad_core.train
from drivers.buttons import RenderedPart
from station.demo import training
from station.model_commands import add_parsers
from varad_core.bundle import load_bundle
from varad_core.config import VaradConfig
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
        ({"--image-size": "3"}, r"image_size_px must be 64 to 2048 \(got 3\)"),
        ({"--recipe": None}, "--recipe"),
        ({"--recipe": "r" * 300}, "--recipe: 300 characters, at most 60"),
        ({"--steps": "0"}, "nothing is trained"),
        ({"--false-reject": "0.02"}, "needs 149 held-out good parts, 372 in all"),
        ({"--false-reject": "2"}, "false_reject_target must be between 0 and 1"),
        ({"--holdout": "0"}, "holdout_share must be between 0 and 1"),
        ({"--resolutions": "256"}, "--resolutions and --overlap are for --framing tiles"),
        ({"--overlap": "0.5"}, "--resolutions and --overlap are for --framing tiles"),
        ({"--framing": "tiles", "--resolutions": "32"}, r"64 to 16384 each \(got 32\)"),
        ({"--framing": "tiles", "--overlap": "0.9"}, r"tile_overlap must be 0.1 to 0.75 \(got 0.9\)"),
        ({"--framing": "tiles", "--overlap": "nan"}, r"tile_overlap must be 0.1 to 0.75 \(got nan\)"),
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


def test_a_bundle_that_is_there_is_replaced_only_if_asked(data: Path, tmp_path: Path) -> None:
    """A line may be using it, and retraining for a product comes with its name."""
    out = tmp_path / "btn.safetensors"
    out.write_bytes(b"the model in use")
    argv = ("train", "--good", data / "train" / "good", "--recipe", "btn", "--out", out,
            "--keys", tmp_path / "k", *SMALL)  # fmt: skip
    with pytest.raises(VaradError, match=r"is there already.*btn-2\.safetensors, or add --replace"):
        _run(*argv)
    assert out.read_bytes() == b"the model in use"
    assert _run(*argv, "--replace") == 0
    assert Inspector.load(out, trusted_keys=tmp_path / "k", device="cpu").model_name == "btn"


def test_resolutions_of_one_length_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(VaradError, match="must differ from each other"):
        _run("train", "--good", data / "train" / "good", "--recipe", "btn", "--out", tmp_path / "m", *SMALL,
             "--keys", tmp_path, "--framing", "tiles", "--resolutions", 96, 96)  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--framing", "round"), "--framing: invalid choice: 'round'"),
        (("--framing", "tiles", "--resolutions"), "--resolutions: expected at least one argument"),
        (("--framing", "tiles", "--resolutions", "256", "fine"), "--resolutions: invalid int value: 'fine'"),
        (("--framing", "tiles", "--overlap", "half"), "--overlap: invalid float value: 'half'"),
    ],
)
def test_what_is_no_number_or_no_framing_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], wrong: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit) as exited:
        _run("evaluate", "set", *wrong)
    assert exited.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_framing_asked_for_is_the_models(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varad_core.train, "MAX_TILES", 40)
    out, keys = tmp_path / "model.safetensors", tmp_path / "keys"
    tiles = ("--framing", "tiles", "--resolutions", 96, 64, "--overlap", 0.5)
    small = ("--image-size", 64, "--steps", 2, *tiles)
    _run("train", "--good", data / "train" / "good", "--recipe", "btn", "--out", out, "--keys", keys, *small)
    config = Inspector.load(out, trusted_keys=keys, device="cpu").config
    assert (config.framing, config.resolutions_px, config.tile_overlap) == ("tiles", (96, 64), 0.5)
    capsys.readouterr()
    assert _run("evaluate", data, "--json", *small) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["image_auroc"] <= 1


@pytest.mark.parametrize(
    ("wish", "levelled"), [((), True), (("--light", "kept"), False), (("--light", "levelled"), True)]
)
def test_the_light_is_levelled_unless_asked_otherwise(
    data: Path, tmp_path: Path, wish: tuple[str, ...], levelled: bool
) -> None:
    out, keys = tmp_path / "model.safetensors", tmp_path / "keys"
    small = ("--image-size", 64, "--steps", 2)
    good = data / "train" / "good"
    _run("train", "--good", good, "--recipe", "btn", "--out", out, "--keys", keys, *small, *wish)
    inspector = Inspector.load(out, trusted_keys=keys, device="cpu")
    assert inspector.config.level_light == (inspector.light is not None) == levelled


@pytest.mark.parametrize(
    ("shape", "framing"), [((64, 96), "square"), ((64, 160), "tiles"), ((192, 64), "tiles")]
)
def test_long_parts_are_inspected_in_tiles_unless_asked_otherwise(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int],
    framing: str,
) -> None:
    monkeypatch.setattr(varad_core.train, "MAX_TILES", 40)
    good, out, keys = tmp_path / "good", tmp_path / "model.safetensors", tmp_path / "keys"
    good.mkdir()
    for index in range(9):
        noise = np.random.default_rng(index).integers(90, 160, (*shape, 3)).astype(np.uint8)
        cv2.imwrite(str(good / f"{index}.png"), noise)
    arguments = ("train", "--good", good, "--recipe", "bar", "--out", out, "--keys", keys,
                 "--image-size", 64, "--steps", 2)  # fmt: skip
    _run(*arguments)
    assert Inspector.load(out, trusted_keys=keys, device="cpu").config.framing == framing
    printed = capsys.readouterr().out
    assert f"framing {framing}" in printed
    assert ("squares a picture" in printed) == (framing == "tiles")
    assert "parts are not aligned: where they may turn or move, train with --variants 2" in printed
    _run(*arguments, "--replace", "--framing", "square")
    assert Inspector.load(out, trusted_keys=keys, device="cpu").config.framing == "square"


@pytest.mark.parametrize("preset", ["station", "paper"])
def test_evaluate_prints_its_figures_as_json_last(
    data: Path, capsys: pytest.CaptureFixture[str], preset: str
) -> None:
    assert _run("evaluate", data, "--preset", preset, "--image-size", 64, "--steps", 2) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures) == {*Figures.__dataclass_fields__, "fit_s", "parameters"}
    assert figures["pixel_auroc"] is None
    assert 0 <= figures["image_auroc"] <= 1


def test_the_model_that_ships_is_the_one_that_train_demo_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[VaradConfig] = []

    def keep(config: VaradConfig, *_: object, **__: object) -> str:
        asked.append(config)
        return ""

    monkeypatch.setattr(training, "train_demo", keep)
    keys = tmp_path / "keys"
    assert _run("train", "--demo", "--seed", 7, "--out", tmp_path / "m.safetensors", "--keys", keys) == 0
    shipped = Path(training.__file__).parent
    manifest = load_bundle(shipped / "model.safetensors", shipped).manifest
    found = {"framing": "square"}  # by training, on the parts themselves
    assert manifest["config"] == json.loads(json.dumps(asked[0].to_dict() | found))
