import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import accuracy, rendered_set
from drivers.buttons import DEFECTS
from station.demo import training
from varad_core.data import load_image
from varad_core.datasets import load_mask, open_dataset
from varad_core.evaluate import Figures

FIGURES: dict[str, float | None] = dict.fromkeys(Figures.__dataclass_fields__, 0.5)
FIGURES |= {"fit_s": 2.0, "peak_mib": 300.0, "fitted_numbers": 10}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two sets of nothing much."""
    for name in ("one", "two"):
        for folder in ("train/good", "test/good", "test/hole"):
            (tmp_path / "data" / name / folder).mkdir(parents=True)
            image = np.zeros((8, 8, 3), np.uint8)
            cv2.imwrite(str(tmp_path / "data" / name / folder / "0.png"), image)
    return tmp_path / "data"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """The runs measured; each method and seed has figures of its own."""
    made: list[tuple[str, str, int]] = []

    def measured(args: argparse.Namespace, one: accuracy.Run, root: Path) -> dict[str, float | None]:
        assert root.name == one["set"]
        made.append(accuracy.run_key(one))
        better = 0.25 if one["method"] == "station" else 0.0
        return FIGURES | {"image_auroc": 0.5 + better + 0.1 * one["seed"], "pixel_auroc": None}

    monkeypatch.setattr(accuracy, "in_own_process", measured)
    monkeypatch.setattr(accuracy.importlib.util, "find_spec", lambda name: name)
    return made


def _run(data: Path, *options: object) -> dict[str, list[accuracy.Run]]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    accuracy.add_arguments(parser)
    weights = data.parent / "weights"
    weights.write_bytes(b"weights")
    argv = ["--data", data, "--weights", weights, "--seeds", 0, 1, *options]
    return accuracy.run(parser.parse_args([str(value) for value in argv]))


def test_finished_runs_are_kept_where_their_settings_are_the_same(
    data: Path, tmp_path: Path, calls: list[tuple[str, str, int]]
) -> None:
    kept = ("--json", tmp_path / "runs.json", "--methods", "station", "patchcore")
    assert len(_run(data, *kept, "--sets", "one")["runs"]) == len(calls) == 4
    assert len(_run(data, *kept)["runs"]) == len(calls) == 8
    assert {name for _, name, _ in calls[4:]} == {"two"}
    _run(data, *kept, "--limit-train", 20, "--sets", "two")
    assert len(calls) == 12
    written = json.loads((tmp_path / "runs.json").read_text())["results"]["runs"]
    assert len(written) == 8
    assert {(one["set"], one["settings"]["limit_train"]) for one in written} == {("one", 60), ("two", 20)}


def test_what_is_printed(
    data: Path, calls: list[tuple[str, str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    _run(data, "--methods", "station", "patchcore")
    printed = capsys.readouterr().out
    assert "[8/8]" in printed
    table, differences = printed.split("All sets")[1].split("station - patchcore")
    assert next(line for line in table.splitlines() if line.startswith("station")).split()[1:4] == [
        "0.800", "±", "0.071",
    ]  # fmt: skip
    assert differences.count("+0.250 ± 0.000") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sets", "three"), "--sets three: not in .*one, two"),
        (("--weights", "none.safetensors"), "none.safetensors: no such file"),
        (("--data", "nowhere"), "nowhere: no such folder"),
    ],
)
def test_wrong_arguments_say_what_to_do(
    data: Path, calls: list[tuple[str, str, int]], options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        _run(data, *options)
    assert not calls


def test_without_anomalib_the_message_names_the_ways_out(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"make bench NAME=accuracy.*--methods station paper"):
        _run(data)


def test_a_file_of_another_kind_is_not_overwritten(
    data: Path, tmp_path: Path, calls: list[tuple[str, str, int]]
) -> None:
    path = tmp_path / "other.json"
    path.write_text("[]")
    with pytest.raises(SystemExit, match="holds no runs"):
        _run(data, "--json", path)
    assert path.read_text() == "[]"


def test_rendered_buttons_are_a_set_like_others(
    data: Path, calls: list[tuple[str, str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SIDE_PX", 96)
    for name, count in (("TRAIN", 3), ("GOOD", 2), ("EACH_DEFECT", 2)):
        monkeypatch.setattr(rendered_set, name, count)
    runs = _run(data, "--methods", "station", "--buttons", 9)["runs"]
    assert [name for _, name, _ in calls] == ["one", "two", "buttons"] * 2
    of_buttons = [one["settings"] for one in runs if one["set"] == "buttons"]
    assert [(one["images"], one["buttons"][0]) for one in of_buttons] == [([3, 2 + 8 * 2], 9)] * 2
    assert all("buttons" not in one["settings"] for one in runs if one["set"] != "buttons")


def test_what_is_ignored_belongs_to_the_settings(data: Path, calls: list[tuple[str, str, int]]) -> None:
    whole, masked = (
        _run(data, "--methods", "station", "--ignore-left", left)["runs"][0]["settings"] for left in (0, 3)
    )
    assert masked == whole | {"ignore_left_px": 3}
    with pytest.raises(SystemExit, match="--ignore-left -1: give a number"):
        _run(data, "--ignore-left", -1)
    with pytest.raises(SystemExit, match="--ignore-left 8: pictures of one are 8 wide"):
        _run(data, "--ignore-left", 8)
    assert len(calls) == 8


def test_rendered_buttons_have_a_mask_for_every_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SIDE_PX", 96)
    for name, count in (("TRAIN", 3), ("GOOD", 2), ("EACH_DEFECT", 2)):
        monkeypatch.setattr(rendered_set, name, count)
    dataset = open_dataset(rendered_set.write_buttons(tmp_path, seed=9))
    assert (len(dataset.train), len(dataset.test)) == (3, 2 + 2 * len(DEFECTS))
    defective = [one for one in dataset.test if one.defect]
    assert {one.defect for one in defective} == set(DEFECTS)
    for one in defective:
        assert one.mask_path is not None
        mask = load_mask(one.mask_path)
        assert mask.shape == load_image(one.path).shape[:2] == (96, 96)
        assert 0 < mask.mean() < 0.5
