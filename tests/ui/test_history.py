from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtWidgets import QApplication

from db.archive import Archive
from db.session import open_database
from db.writer import PartRow, Writer
from station.types import Verdict
from ui.history import History, RecordedPart, to_map_u8
from ui.picture import Picture

WaitUntil = Callable[[Callable[[], bool]], None]
START_NS = 1_764_000_000_000_000_000


def record_parts(folder: Path, verdicts: list[Verdict]) -> None:
    """A real record: rows, and for all but the uninspected a picture and a map at 1.5 times the limit."""
    archive = Archive(folder / "images")
    database = open_database(folder / "station.db")
    try:
        writer = Writer(database)
        try:
            run_id = "run-1"
            writer.start_run(
                run_id,
                station="Station 3",
                started_unix_ns=START_NS,
                version="1",
                config_sha256="0" * 64,
                model_id="m",
            )
            rows = []
            for seq, verdict in enumerate(verdicts):
                uid, at_ns = f"part-{seq}", START_NS + seq * 10**9
                image_rgb = np.full((40, 60, 3), (10, 20 + seq, 200), np.uint8)
                anomaly_map = np.zeros((8, 12), np.float32)
                anomaly_map[4, 6] = 0.93
                seen = verdict is not Verdict.NOT_INSPECTED
                files = archive.store(
                    uid, at_ns, image_rgb if seen else None, anomaly_map if seen else None, True
                )
                rows.append(
                    PartRow(
                        uid=uid,
                        run_id=run_id,
                        part_seq=seq,
                        camera_id="CAM 1",
                        frame_id=seq,
                        triggered_unix_ns=at_ns,
                        shift_key="2025-11-24 A",
                        lot="L1",
                        recipe="R1",
                        user="",
                        verdict=verdict,
                        reason="above reject limit",
                        score=0.9 if seen else None,
                        limit_recheck=0.5,
                        limit_reject=0.62,
                        model_id="m",
                        latency_ms=40.0,
                        image_path=files.image_path,
                        map_path=files.map_path,
                    )
                )
            writer.commit(rows)
        finally:
            writer.close()
    finally:
        database.close()


@pytest.fixture
def history(app: QApplication, tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "station.db", tmp_path / "images")
    history.start()
    yield history
    history.close()


def test_last_and_shift_are_found_newest_first(
    history: History, tmp_path: Path, wait_until: WaitUntil
) -> None:
    record_parts(
        tmp_path, [Verdict.REJECT, Verdict.PASS, Verdict.RECHECK, Verdict.NOT_INSPECTED, Verdict.REJECT]
    )
    last: list[list[RecordedPart]] = []
    shift: list[list[RecordedPart]] = []
    history.last_found.connect(last.append)
    history.shift_found.connect(shift.append)
    history.ask_last(2)
    history.ask_shift(START_NS + 2 * 10**9)
    wait_until(lambda: bool(last and shift))
    assert [part.part_seq for part in last[0]] == [4, 3]
    assert [part.part_seq for part in shift[0]] == [4, 3, 2]
    assert last[0][1].verdict is Verdict.NOT_INSPECTED


def test_picture_comes_with_its_heatmap(history: History, tmp_path: Path, wait_until: WaitUntil) -> None:
    record_parts(tmp_path, [Verdict.PASS, Verdict.REJECT, Verdict.NOT_INSPECTED])
    found: dict[str, Picture] = {}
    history.picture_found.connect(found.__setitem__)
    history.ask_picture_of("part-1", (120, 120))
    history.ask_picture_of("part-2", (120, 120))
    wait_until(lambda: len(found) == 2)
    reject = found["part-1"]
    colour = reject.image.pixelColor(5, 5)
    assert (colour.red(), colour.green(), colour.blue()) == (10, 21, 200)
    assert (reject.fitted.width(), reject.fitted.height()) == (120, 80)
    assert len(reject.contours) == 1
    assert found["part-2"].image.isNull()


def test_a_picture_that_is_gone_leaves_the_part(
    history: History, tmp_path: Path, wait_until: WaitUntil
) -> None:
    record_parts(tmp_path, [Verdict.REJECT])
    for path in (tmp_path / "images").rglob("*.png"):
        path.unlink()
    found: dict[str, Picture] = {}
    history.picture_found.connect(found.__setitem__)
    history.ask_picture_of("part-0", (120, 120))
    wait_until(lambda: bool(found))
    assert found["part-0"].image.isNull()


def test_no_record_yet_is_told(history: History, tmp_path: Path, wait_until: WaitUntil) -> None:
    failed: list[str] = []
    history.failed.connect(lambda _what, why: failed.append(why))
    history.ask_last(5)
    wait_until(lambda: bool(failed))
    assert str(tmp_path / "station.db") in failed[0]


@given(st.floats(0.01, 100), st.floats(0, 300))
def test_recorded_maps_are_on_the_published_scale(limit: float, value: float) -> None:
    level = int(to_map_u8(np.array([[value]], np.float32), limit)[0, 0])
    assert abs(level - min(128 * value / limit, 255)) <= 0.51 + 1e-4 * 128 * value / limit
    assert to_map_u8(np.array([[np.nan]], np.float32), limit)[0, 0] == 255
