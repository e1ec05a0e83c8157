"""The full line on other cameras than the simulated one, with the model that ships, to rows and heatmaps."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scripted_line import ROOT, free_port

from db.archive import Archive
from db.session import open_read_only
from drivers.buttons import render_part
from varad_core.augmentation import sense

PILLS = ROOT.parent / "shared" / "data" / "pill" / "test"
SHIPPED = (ROOT / "config.yaml").read_text()


def run(folder: Path, camera: str, parts: int) -> tuple[dict[str, object], list[tuple[object, ...]]]:
    """`station run` on another camera: its figures, and (verdict, reason, image, map) of each row."""
    head, rest = SHIPPED.split("  - driver: simulated", 1)
    tail = rest[rest.index("trigger:") :].replace("port: 17800", f"port: {free_port()}")
    config = folder / "config.yaml"
    config.write_text(f"{head}  - {camera}\n{tail}")
    command = [sys.executable, "-m", "station.cli", "run", "--headless", "--json", "--parts", str(parts)]
    done = subprocess.run(
        [*command, "--config", config], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    figures: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    assert figures["triggered"] == figures["rows"] == parts
    database = open_read_only(folder / "station-data" / "station.db")
    with database.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT verdict, reason, image_path, map_path FROM part ORDER BY part_seq"
        ).all()
    database.close()
    return figures, [tuple(row) for row in rows]


def assert_heatmaps(folder: Path, rows: list[tuple[object, ...]], shape: tuple[int, ...]) -> None:
    """What did not pass has its picture, as it was, and a map of finite numbers."""
    archive = Archive(folder / "station-data" / "images")
    kept = [(image, anomaly_map) for verdict, _, image, anomaly_map in rows if verdict != "PASS"]
    assert kept
    for image, anomaly_map in kept:
        assert archive.load_image(str(image)).shape == shape
        assert np.isfinite(archive.load_map(str(anomaly_map))).all()


@pytest.mark.slow
def test_pylon_emulator_showing_pills(tmp_path: Path) -> None:
    """The shipped model knows buttons only: it must find every pill strange, and say where."""
    if not PILLS.is_dir():
        pytest.skip("the pill images (../shared/data/pill) are not here")
    camera = f"{{driver: pylon, emulated: true, pixel_format: RGB8Packed, image_folder: {PILLS / 'chip'}}}"
    figures, rows = run(tmp_path, camera, 8)
    assert figures["reject"] == 8
    assert_heatmaps(tmp_path, rows, (225, 225, 3))


@pytest.mark.slow
def test_replay_of_buttons_and_a_damaged_file(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    truths = ["", "crack", "", "extra_hole"]
    for index, defect in enumerate(truths):
        truth = (defect, 0.9 if defect else 0.0)
        part = render_part(seed=99, index=index, defect_rate=0, width_px=512, height_px=512, truth=truth)
        assert cv2.imwrite(str(pictures / f"{index}.png"), part.image_rgb[..., ::-1])
    (pictures / "9.png").write_bytes(b"not a picture")
    _, rows = run(tmp_path, "{driver: replay, folder: pictures, loop: false}", 6)
    assert [row[0] for row in rows[:4]] == ["PASS", "REJECT", "PASS", "REJECT"]
    assert [row[:2] for row in rows[4:]] == [("NOT_INSPECTED", "frame failed")] * 2
    assert_heatmaps(tmp_path, rows[1:4:2], (512, 512, 3))


@pytest.mark.slow
def test_a_lamp_that_has_aged_is_told_and_recorded(tmp_path: Path) -> None:
    """The shipped model, good buttons in three quarters of the light."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(10):
        button = render_part(
            seed=99, index=index, defect_rate=0, width_px=512, height_px=512, truth=("", 0.0)
        ).image_rgb
        dimmed = sense(button, np.random.default_rng(index), gain=0.75)
        assert cv2.imwrite(str(pictures / f"{index}.png"), dimmed[..., ::-1])
    run(tmp_path, "{driver: replay, folder: pictures, loop: false}", 10)
    database = open_read_only(tmp_path / "station-data" / "station.db")
    with database.connect() as connection:
        events = connection.exec_driver_sql("SELECT title, detail FROM event WHERE kind = 'alarm'").all()
    database.close()
    ((title, detail),) = [event for event in events if event[0].startswith("PICTURES ARE")]
    assert re.fullmatch(r"PICTURES ARE 2\d% DARKER THAN AT TRAINING", title)
    assert json.loads(detail)["action"] == "check lamp, shades and exposure"
