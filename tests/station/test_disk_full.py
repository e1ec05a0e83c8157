"""A full disk, for real: pictures are shed and flagged; rows wait, and are written once there is space."""

import time
from pathlib import Path

import numpy as np
from scripted_line import STAND_IN, ScriptedCamera, line_config

from db.session import open_read_only
from drivers.types import Grab
from station.engine import Engine


class NoisyCamera(ScriptedCamera):
    """Pictures that do not compress: rejects fill the disk."""

    def retrieve(self, timeout_s: float) -> Grab | None:
        grab = super().retrieve(timeout_s)
        if grab and grab.image_rgb is not None:
            grab.image_rgb[1:] = np.random.default_rng(grab.frame_id).integers(
                0, 255, grab.image_rgb[1:].shape
            )
        return grab


def wait_for(condition: object, what: str) -> None:
    give_up_s = time.monotonic() + 40
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < give_up_s, what
        time.sleep(0.02)


def test_a_full_disk_sheds_pictures_never_rows(small_disk: Path, no_leaks: None) -> None:
    changes = {"trigger": {"interval_ms": 15.0}, "record": {"ballast_mb": 0.5}}
    config = line_config(small_disk / "data", **changes)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(2_000_000))
    engine = Engine(config, cameras=[NoisyCamera([(150, 0, 0)], width_px=96, height_px=96)], command=STAND_IN)
    engine.start()
    wait_for(lambda: engine.health.device_state("record") == "fault", "the disk never filled up")
    behind = engine.ledger.snapshot()
    wait_for(lambda: engine.ledger.snapshot().rows >= behind.triggered + 20, "rows wait for the disk")
    assert engine.ledger.snapshot().balanced()
    assert any(alarm.key == "device-record" for alarm in engine.health.snapshot().alarms)
    filler.unlink()
    wait_for(lambda: engine.health.device_state("record") == "ok", "the record did not recover")
    account = engine.stop("done")
    assert account.rows == account.triggered == account.reject
    assert engine.recording.unrecorded == 0
    database = open_read_only(config.database_path)
    with database.connect() as connection:
        rows = connection.exec_driver_sql("SELECT image_path, image_shed FROM part ORDER BY id").all()
    database.close()
    assert all((row.image_path is None) == bool(row.image_shed) for row in rows), (
        "a picture is missing silently"
    )
    assert 20 <= sum(row.image_shed for row in rows) < len(rows)
    assert not list(small_disk.rglob("*.tmp"))
