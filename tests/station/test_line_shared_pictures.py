"""The worker reads a picture where the camera has put it; nobody copies it on the way."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from line_runs import assert_whole
from scripted_line import STAND_IN, line_config

from db.archive import Archive
from db.session import open_read_only
from station.engine import Engine
from station.slab import ROOMS, SLOTS
from station.worker_link import WorkerLink
from station.worker_wire import Request


@pytest.mark.parametrize("pixel_format", ["RGB8Packed", "BGR8Packed"])
def test_pictures_of_a_pylon_camera_reach_worker_and_record_from_where_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixel_format: str
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, red in (("0-good", 50), ("1-bad", 150), ("2-worse", 250)):
        assert cv2.imwrite(str(folder / f"{name}.png"), np.full((64, 64, 3), (0, 0, red), np.uint8))
    requests: list[Request] = []
    send = WorkerLink.send

    def watched(own: WorkerLink, request: Request) -> bool:
        requests.append(request)
        return send(own, request)

    monkeypatch.setattr(WorkerLink, "send", watched)
    pylon = {"driver": "pylon", "emulated": True, "pixel_format": pixel_format, "image_folder": folder}
    config = line_config(tmp_path, pylon, trigger={"interval_ms": 40.0}, record={"pass_image_every": 1})
    parts = 2 * ROOMS
    engine = Engine(config, parts=parts, command=STAND_IN)
    engine.start()
    assert engine.done.wait(60)
    rows = assert_whole(engine.stop("done"), engine, parts)
    assert [request.part_seq for request in requests] == [row["part_seq"] for row in rows]
    assert all(request.room >= SLOTS for request in requests)
    archive = Archive(config.images_dir)
    database = open_read_only(config.database_path)
    with database.connect() as connection:
        kept = connection.exec_driver_sql("SELECT verdict, image_path FROM part ORDER BY part_seq").all()
    database.close()
    for (verdict, path), red in zip(kept, itertools.cycle((50, 150, 250)), strict=False):
        assert verdict == ("PASS" if red == 50 else "REJECT")
        np.testing.assert_allclose(archive.load_image(path)[0, 0], (red, 0, 0), atol=3)
