"""Labelled sets for evaluation: good parts to train on, good and defective ones to test on.

    layout              folders of one set
    MVTec AD            train/good, test/good, test/DEFECT, ground_truth/DEFECT/STEM_mask.*
                        (so are DTD-Synthetic's; masks may also be named as their images)
    BTAD                train/ok, test/ok, test/ko, ground_truth/ko/STEM.*
    VisA                Data/Images/Normal and Anomaly, Data/Masks/Anomaly/STEM.*; the set's split is in
                        ../split_csv/1cls.csv
    good and bad parts  good (or ok, normal) and bad (or nok, ng, ko, defect, anomaly); no masks

Bergmann et al., CVPR 2019; Aota et al., WACV 2023 (DTD-Synthetic); Mishra et al., ISIE 2021; Zou et al.,
ECCV 2022.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from varad_core.data import image_paths, load_image
from varad_core.types import DataError

GOOD_NAMES = ("good", "ok", "normal")
BAD_NAMES = ("bad", "nok", "ng", "ko", "defect", "defective", "anomaly")
VISA_SPLIT = Path("split_csv", "1cls.csv")
GOOD_TEST_SHARE = 0.3  # of a plain folder's good parts, kept from training to test on
SPLIT_SEED = 0  # of that share: the same parts in every run, whatever a method's seed is


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image of a test set; `defect` is '' for good parts, `mask_path` None where there is no mask."""

    path: Path
    defect: str
    mask_path: Path | None


@dataclass(frozen=True, slots=True)
class Dataset:
    """One set.

    Attributes:
        name: of its folder.
        layout: as in the table above.
        train: good parts, by name.
        test: good and defective parts.
    """

    name: str
    layout: str
    train: tuple[Path, ...]
    test: tuple[LabelledImage, ...]

    def draw_train(self, limit: int, seed: int) -> list[Path]:
        """At most `limit` training images, by name; the seed draws which. 0 = all."""
        if not 0 < limit < len(self.train):
            return list(self.train)
        drawn = np.random.default_rng(seed).permutation(len(self.train))[:limit]
        return [self.train[index] for index in sorted(drawn)]


def open_dataset(root: Path) -> Dataset:
    """Recognise a set's layout from its folders, and list its images.

    Raises:
        DataError: the folder is missing, of no known layout, or lacks images of one kind.
    """
    if not root.is_dir():
        raise DataError(f"set {root}: no such folder")
    layout = _layout(root)
    if layout is None:
        wanted = "; ".join(f"{name}: {', '.join(folders)}" for name, (folders, _) in LAYOUTS.items())
        present = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir())) or "no folder"
        raise DataError(f"set {root}: no known layout (has {present}); looked for {wanted}")
    train, test = LAYOUTS[layout][1](root)
    for kind, count in (
        ("to train on", len(train)),
        ("good to test on", sum(not one.defect for one in test)),
        ("defective to test on", sum(bool(one.defect) for one in test)),
    ):
        if not count:
            raise DataError(f"set {root}: layout {layout}, and no image {kind}")
    return Dataset(root.resolve().name, layout, tuple(train), tuple(test))


def find_sets(data: Path) -> list[Path]:
    """The folder itself where it is a set, or else the sets directly in it, by name.

    Raises:
        DataError: there is none.
    """
    if not data.is_dir():
        raise DataError(f"folder {data}: no such folder")
    folders = [data] if _layout(data) else sorted(path for path in data.iterdir() if path.is_dir())
    found = [folder for folder in folders if _layout(folder)]
    if not found:
        raise DataError(f"folder {data}: neither a set nor a folder of sets ({', '.join(LAYOUTS)})")
    return found


def load_mask(path: Path) -> NDArray[np.bool_]:
    """A ground-truth mask as bool (H, W): whatever is not 0 is defective.

    Raises:
        DataError: it is missing or damaged.
    """
    return np.asarray(load_image(path).max(axis=2) > 0)


Images = tuple[Sequence[Path], Sequence[LabelledImage]]  # to train on, to test on


def _read_split_folders(root: Path) -> Images:
    """MVTec AD and BTAD: the test's folders are the defects."""
    good = next(name for name in GOOD_NAMES if (root / "train" / name).is_dir())
    test: list[LabelledImage] = []
    for folder in sorted(path for path in (root / "test").iterdir() if path.is_dir()):
        paths = image_paths(folder)
        if folder.name == good:
            test += _good(paths)
        else:
            test += _defective(paths, folder.name, root / "ground_truth" / folder.name)
    return image_paths(root / "train" / good), test


def _read_visa(root: Path) -> Images:
    """VisA: the published split, paths relative to the folder above the sets."""
    above = root.resolve().parent
    table = above / VISA_SPLIT
    if not table.is_file():
        raise DataError(f"set {root}: layout VisA, and no {table}, which says what to train on")
    train: list[Path] = []
    test: list[LabelledImage] = []
    with table.open(newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            try:
                if row["object"] != root.resolve().name:
                    continue
                path, mask = above / row["image"], above / row["mask"] if row["mask"] else None
                if row["split"] == "train":
                    train.append(path)
                else:
                    bad = row["label"] != "normal"
                    test.append(LabelledImage(path, "anomaly" if bad else "", mask if bad else None))
            except KeyError as missing:
                raise DataError(
                    f"table {table}: no column {missing}; need object, split, label, image, mask"
                ) from missing
    return train, test


def _read_good_and_bad(root: Path) -> Images:
    """Good parts are split by SPLIT_SEED, all bad ones are tested."""
    good_folder, bad_folder = _folders(root, GOOD_NAMES)[0], _folders(root, BAD_NAMES)[0]
    good = image_paths(good_folder)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(good))
    kept = max(1, round(GOOD_TEST_SHARE * len(good)))
    tested = _good([good[index] for index in sorted(order[:kept])])
    train = [good[index] for index in sorted(order[kept:])]
    return train, [*tested, *_defective(image_paths(bad_folder), bad_folder.name, None)]


def _good(paths: Iterable[Path]) -> list[LabelledImage]:
    return [LabelledImage(path, "", None) for path in paths]


def _defective(paths: Sequence[Path], defect: str, mask_folder: Path | None) -> list[LabelledImage]:
    """Images of one defect, each with the mask of its name.

    Raises:
        DataError: there are masks, and all are named otherwise.
    """
    masks: dict[str, Path] = {}
    if mask_folder is not None and mask_folder.is_dir():
        masks = {path.stem.removesuffix("_mask"): path for path in image_paths(mask_folder)}
    found = [LabelledImage(path, defect, masks.get(path.stem)) for path in paths]
    if masks and paths and not any(one.mask_path for one in found):
        raise DataError(
            f"masks {mask_folder}: none is named for an image of {paths[0].parent} (e.g. "
            f"{paths[0].stem}_mask.png or {paths[0].stem}.png); found {min(masks.values()).name}"
        )
    return found


def _folders(root: Path, names: Sequence[str]) -> list[Path]:
    """Those of the names that are folders of `root`, in any case of letters."""
    present = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    return [present[name] for name in names if name in present]


def _layout(root: Path) -> str | None:
    """The first layout whose folders are all there."""
    for name, (folders, _) in LAYOUTS.items():
        if all(_present(root, folder) for folder in folders):
            return name
    return None


def _present(root: Path, folder: str) -> bool:
    alternatives = {"good": GOOD_NAMES, "bad": BAD_NAMES}.get(folder)
    return bool(_folders(root, alternatives)) if alternatives else (root / folder).is_dir()


LAYOUTS: dict[str, tuple[tuple[str, ...], Callable[[Path], Images]]] = {
    "MVTec AD": (("train/good", "test/good"), _read_split_folders),
    "BTAD": (("train/ok", "test/ok"), _read_split_folders),
    "VisA": (("Data/Images/Normal", "Data/Images/Anomaly"), _read_visa),
    "good and bad parts": (("good", "bad"), _read_good_and_bad),
}
