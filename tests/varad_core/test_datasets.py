from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from varad_core.datasets import Dataset, find_sets, load_mask, open_dataset
from varad_core.types import DataError


def _images(folder: Path, names: Sequence[str], value: int = 90) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / name), np.full((8, 8, 3), value, np.uint8))


def _mvtec(root: Path, masks: str = "{}_mask.png") -> Path:
    _images(root / "train" / "good", ["000.png", "001.png", "002.png"])
    _images(root / "test" / "good", ["000.png"])
    for defect in ("crack", "hole"):
        _images(root / "test" / defect, ["000.png", "001.png"])
        _images(root / "ground_truth" / defect, [masks.format("000"), masks.format("001")], 255)
    return root


def _btad(root: Path) -> Path:
    _images(root / "train" / "ok", ["0000.bmp", "0001.bmp"])
    _images(root / "test" / "ok", ["0002.bmp"])
    _images(root / "test" / "ko", ["0000.bmp", "0001.bmp"])
    _images(root / "ground_truth" / "ko", ["0000.png", "0001.png"], 255)
    return root


def _visa(root: Path) -> Path:
    _images(root / "Data" / "Images" / "Normal", ["0000.JPG", "0001.JPG", "0002.JPG"])
    _images(root / "Data" / "Images" / "Anomaly", ["000.JPG", "001.JPG"])
    _images(root / "Data" / "Masks" / "Anomaly", ["000.png", "001.png"], 1)  # VisA's masks hold small numbers
    images, masks = f"{root.name}/Data/Images", f"{root.name}/Data/Masks"
    rows = [
        "object,split,label,image,mask",
        f"{root.name},train,normal,{images}/Normal/0000.JPG,",
        f"{root.name},train,normal,{images}/Normal/0002.JPG,",
        f"{root.name},test,normal,{images}/Normal/0001.JPG,",
        "other,train,normal,other/Data/Images/Normal/0000.JPG,",
        *(
            f"{root.name},test,anomaly,{images}/Anomaly/{n}.JPG,{masks}/Anomaly/{n}.png"
            for n in ("000", "001")
        ),
    ]
    table = root.parent / "split_csv" / "1cls.csv"
    table.parent.mkdir()
    table.write_text("\n".join(rows) + "\n")
    return root


def _good_and_bad(root: Path, good: str = "OK", bad: str = "nok") -> Path:
    _images(root / good, [f"{n}.png" for n in range(10)])
    _images(root / bad, ["a.png", "b.png"])
    return root


def _contents(dataset: Dataset) -> tuple[list[str], list[tuple[str, str, str]]]:
    return [path.name for path in dataset.train], [
        (one.path.name, one.defect, one.mask_path.name if one.mask_path else "") for one in dataset.test
    ]


@pytest.mark.parametrize("masks", ["{}_mask.png", "{}.png"])
def test_mvtec_ad_and_dtd_synthetic(tmp_path: Path, masks: str) -> None:
    dataset = open_dataset(_mvtec(tmp_path / "Woven_001", masks))
    assert (dataset.name, dataset.layout) == ("Woven_001", "MVTec AD")
    train, test = _contents(dataset)
    assert train == ["000.png", "001.png", "002.png"]
    assert test == [
        *((f"{n}.png", "crack", masks.format(n)) for n in ("000", "001")),
        ("000.png", "", ""),
        *((f"{n}.png", "hole", masks.format(n)) for n in ("000", "001")),
    ]


def test_btad(tmp_path: Path) -> None:
    dataset = open_dataset(_btad(tmp_path / "01"))
    assert dataset.layout == "BTAD"
    assert _contents(dataset) == (
        ["0000.bmp", "0001.bmp"],
        [("0000.bmp", "ko", "0000.png"), ("0001.bmp", "ko", "0001.png"), ("0002.bmp", "", "")],
    )


def test_visa_follows_the_published_split(tmp_path: Path) -> None:
    dataset = open_dataset(_visa(tmp_path / "candle"))
    assert dataset.layout == "VisA"
    assert _contents(dataset) == (
        ["0000.JPG", "0002.JPG"],
        [
            ("0001.JPG", "", ""),
            ("000.JPG", "anomaly", "000.png"),
            ("001.JPG", "anomaly", "001.png"),
        ],
    )
    mask = dataset.test[1].mask_path
    assert mask is not None
    assert load_mask(mask).all()


@pytest.mark.parametrize(("good", "bad"), [("good", "bad"), ("OK", "NG"), ("normal", "defect")])
def test_a_plain_folder_is_split_the_same_way_each_time(tmp_path: Path, good: str, bad: str) -> None:
    root = _good_and_bad(tmp_path / "part", good, bad)
    dataset = open_dataset(root)
    assert dataset == open_dataset(root)
    tested = [one.path for one in dataset.test if not one.defect]
    assert len(dataset.train) == 7
    assert sorted([*dataset.train, *tested]) == sorted((root / good).iterdir())
    assert {one.defect for one in dataset.test} == {"", bad}
    assert all(one.mask_path is None for one in dataset.test)


def test_the_seed_draws_the_training_images(tmp_path: Path) -> None:
    root = _good_and_bad(tmp_path / "part")
    _images(root / "OK", [f"{n}.png" for n in range(100)])
    dataset = open_dataset(root)
    drawn = dataset.draw_train(20, seed=0)
    assert len(set(drawn)) == 20
    assert drawn == dataset.draw_train(20, seed=0) == sorted(drawn, key=dataset.train.index)
    assert drawn != dataset.draw_train(20, seed=1)
    assert dataset.draw_train(0, seed=1) == dataset.draw_train(1000, seed=2) == list(dataset.train)


def test_sets_of_a_folder(tmp_path: Path) -> None:
    sets = [_btad(tmp_path / "01"), _mvtec(tmp_path / "bottle"), _visa(tmp_path / "candle")]
    assert find_sets(tmp_path) == sets  # split_csv is none
    assert find_sets(sets[1]) == [sets[1]]
    with pytest.raises(DataError, match="neither a set nor a folder of sets"):
        find_sets(tmp_path / "split_csv")


def test_what_is_wrong_with_a_set_is_said_in_one_line(tmp_path: Path) -> None:
    def message(root: Path) -> str:
        with pytest.raises(DataError) as error:
            open_dataset(root)
        assert "\n" not in str(error.value)
        assert str(root) in str(error.value)
        return str(error.value)

    assert "no such folder" in message(tmp_path / "none")
    _images(tmp_path / "odd" / "pictures", ["a.png"])
    unknown = message(tmp_path / "odd")
    assert "has pictures" in unknown
    for folder in ("train/good", "train/ok", "Data/Images/Normal", "bad"):
        assert folder in unknown
    empty = _mvtec(tmp_path / "empty")
    for path in (empty / "test" / "good").iterdir():
        path.unlink()
    assert "no image good to test on" in message(empty)
    assert "found 000x.png" in message(_mvtec(tmp_path / "names", "{}x.png"))
    visa = _visa(tmp_path / "candle")
    table = tmp_path / "split_csv" / "1cls.csv"
    table.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"1cls\.csv: no column 'object'; need object, split"):
        open_dataset(visa)
    table.unlink()
    assert "1cls.csv" in message(visa)
