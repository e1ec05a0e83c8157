import hashlib
import math
import shutil
from dataclasses import replace
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import pytest
import torch
from conftest import tiny_config
from numpy.typing import NDArray

from varad_core.augmentation import move
from varad_core.config import PredictorConfig, TrainingConfig, VaradConfig, default_config
from varad_core.data import ImageFiles, good_parts, image_digests, images_hash, load_image
from varad_core.train import Cancelled, split, train
from varad_core.types import DataError, VaradError

Image = NDArray[np.uint8]
FLAT = tiny_config(image_size_px=64, alignment="none", training=TrainingConfig(seed=1, steps=3, batch_size=2))


def _textures(count: int, seed: int = 0) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [
        cv2.GaussianBlur(rng.integers(0, 256, (64, 72, 3), dtype=np.uint8), (3, 3), 0) for _ in range(count)
    ]


def _quiet(stage: str, done: int, total: int, loss: float) -> None:
    pass


def _save(folder: Path, images: list[Image]) -> None:
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / f"{index:02d}.png"), image)


def test_the_same_seed_gives_the_same_model() -> None:
    one, two = (train(_textures(10), FLAT, name="a") for _ in range(2))
    for key, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, two.model.state_dict()[key])
    assert one.limits == two.limits
    other = train(_textures(10), replace(FLAT, training=replace(FLAT.training, seed=2)), name="a")
    assert other.limits != one.limits


def test_varied_copies_train_and_calibrate_and_count_as_no_parts_of_their_own() -> None:
    plain, varied = (
        train(_textures(12), replace(FLAT, training=replace(FLAT.training, variants=variants)), name="a")
        for variants in (0, 2)
    )
    assert (varied.provenance["good_parts"], varied.provenance["held_out_parts"]) == (12, 5)
    assert varied.provenance["fitted_inputs"] == 3 * plain.provenance["fitted_inputs"] == 21
    assert varied.limits.false_reject_bound == plain.limits.false_reject_bound
    turned = move(_textures(1)[0], turn_deg=4.0)  # of a part that was trained on
    above = [one.inspect(turned).score / one.limits.reject for one in (plain, varied)]
    assert above[1] < above[0]


def test_paper_preset_trains_and_scores() -> None:
    config = replace(
        default_config("paper", "embedded", 64),
        predictor=PredictorConfig(d_state=4, dt_rank=2, lag_rows=2),
        training=TrainingConfig(steps=3, batch_size=2),
    )
    inspector = train(_textures(8), config, name="p")
    result = inspector.inspect(_textures(1, seed=9)[0])
    assert 0 < result.score < 2
    assert inspector.limits.reject >= inspector.limits.recheck


def test_split_is_seeded_disjoint_and_complete() -> None:
    fitted, held_out = split(50, TrainingConfig(holdout_share=0.4))
    assert sorted(fitted + held_out) == list(range(50))
    assert len(held_out) == 20
    assert split(50, TrainingConfig()) == split(50, TrainingConfig())
    assert split(50, TrainingConfig(seed=1)) != split(50, TrainingConfig())
    assert len(split(8, TrainingConfig())[0]) == 4


def test_progress_counts_every_stage_to_its_end() -> None:
    seen: dict[str, tuple[int, int]] = {}
    losses: list[float] = []

    def progress(stage: str, done: int, total: int, loss: float) -> None:
        seen[stage] = (done, total)
        losses.append(loss)

    train(_textures(8), FLAT, name="a", progress=progress)
    assert seen == {"tokenize": (8, 8), "train": (1000, 1000)}
    assert math.isfinite(losses[-1])


@pytest.mark.parametrize("stage", ["tokenize", "train"])
def test_cancelling_stops_at_once(stage: str) -> None:
    cancel = Event()
    calls = []

    def progress(name: str, done: int, total: int, loss: float) -> None:
        calls.append(name)
        if name == stage:
            cancel.set()

    with pytest.raises(Cancelled, match="nothing was written"):
        train(_textures(8), FLAT, name="a", progress=progress, cancel=cancel)
    assert calls.count(stage) == 1


def test_minutes_bound_the_loop() -> None:
    config = replace(FLAT, training=TrainingConfig(steps=0, minutes=1e-4, batch_size=2))
    assert train(_textures(8), config, name="a").provenance["fitted_parts"] == 4


def test_too_few_parts_say_how_many_are_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"at least 8 good parts \(got 7\)"):
        train(_textures(7), FLAT, name="a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="0 images, need at least 8"):
        good_parts(tmp_path / "empty")
    with pytest.raises(DataError, match="no such folder"):
        good_parts(tmp_path / "none")


def test_copies_of_a_few_pictures_are_no_training_set() -> None:
    with pytest.raises(DataError, match=r"got 21, 7 different ones; copies do not show"):
        train(_textures(7) * 3, FLAT, name="a")


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    config = replace(FLAT, training=replace(FLAT.training, learning_rate=1e4))
    with pytest.raises(DataError, match="loss is nan at a learning rate of 10000"):
        train(_textures(8), config, name="a")


def test_more_than_8_bits_a_channel_are_refused(tmp_path: Path) -> None:
    """12 bits in 16, as cameras store them, would be nearly black at 8."""
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), np.full((32, 32), 4095, np.uint16))
    with pytest.raises(
        DataError, match=r"deep\.png: values are uint16, the highest 4095.* save it with 8 bits"
    ):
        load_image(path)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps"])
def test_a_device_that_is_not_there_is_named_before_the_work(device: str) -> None:
    with pytest.raises(VaradError, match=f"device '{device}': torch .* cannot use it"):
        train(_textures(8), FLAT, name="a", device=device)


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "gone"])
def test_damaged_images_are_named(tmp_path: Path, damage: str) -> None:
    _save(tmp_path / "good", _textures(9))
    files = good_parts(tmp_path / "good")
    victim = files.paths[4]
    match damage:
        case "empty":
            victim.write_bytes(b"")
        case "text":
            victim.write_text("not a picture")
        case "cut":
            victim.write_bytes(victim.read_bytes()[:40])
        case "gone":
            victim.unlink()
    with pytest.raises(DataError, match=r"04\.png"):
        train(files, FLAT, name="a")


def test_images_are_read_as_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((4, 4, 3), (0, 0, 255), np.uint8))  # OpenCV: blue, green, red
    assert load_image(path)[0, 0].tolist() == [255, 0, 0]


def test_training_hash_is_of_the_files_whatever_their_order(tmp_path: Path) -> None:
    _save(tmp_path / "good", _textures(8))
    files = good_parts(tmp_path / "good")
    expected = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in files.paths)
    assert images_hash(image_digests(files)) == hashlib.sha256("\n".join(expected).encode()).hexdigest()
    assert images_hash(image_digests(ImageFiles(files.paths[::-1]))) == images_hash(image_digests(files))
    shutil.copy(files.paths[0], files.paths[1])
    assert images_hash(image_digests(files)) != hashlib.sha256("\n".join(expected).encode()).hexdigest()


def test_configurations_survive_json_and_refuse_nonsense() -> None:
    for preset in ("station", "paper"):
        config = default_config(preset, "dinov2_vits14", 256, seed=4)  # type: ignore[arg-type]
        assert config.image_size_px == 252
        assert VaradConfig.from_dict(config.to_dict()) == config
    for changes, message in (
        ({"image_size_px": 100}, "multiple of 16"),
        ({"tokenizer": "vgg"}, "tokenizer must be one of"),
        ({"colour": 1}, "unknown keys"),
        ({"predictor": {"directions": 5}}, "1 or 4"),
        ({"training": {"steps": 0}}, "nothing is trained"),
    ):
        with pytest.raises(ValueError, match=message):
            VaradConfig.from_dict(changes)
