import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from db.session import Database, open_database
from db.writer import PartRow, Writer

HOUR_NS = 3_600_000_000_000
RUN_ID = "run-1"

MakePart = Callable[..., PartRow]


def make_part(number: int, **changed: object) -> PartRow:
    row: dict[str, object] = {
        "uid": f"part-{number}",
        "run_id": RUN_ID,
        "part_seq": number,
        "camera_id": "CAM 1",
        "frame_id": number,
        "triggered_unix_ns": 1_790_000_000_000_000_000 + number * 1_000_000_000,
        "shift_key": "2026-11-24 A",
        "lot": "L1",
        "recipe": "button",
        "user": "ana",
        "verdict": "PASS",
        "reason": "below limit",
        "score": 0.25 + number % 7 / 10,
        "limit_recheck": 0.8,
        "limit_reject": 1.0,
        "model_id": "m1",
        "latency_ms": 30.0 + number % 11,
        "timings_ms": {"align": 1.5, "predict": 20.25},
        "image_path": None,
        "map_path": None,
        "image_shed": False,
        "regions": ((0.1, 0.2, 0.3, 0.4),),
        "plc_part_id": number if number % 2 else None,
        "views": (),
    }
    return PartRow(**(row | changed))  # type: ignore[arg-type]


@pytest.fixture(name="make_part", scope="session")
def make_part_fixture() -> MakePart:
    return make_part


@contextmanager
def recording(path: Path) -> Iterator[tuple[Database, Writer]]:
    """An open database and its writer, with one run started."""
    with closing(open_database(path)) as database, closing(Writer(database)) as writer:
        writer.start_run(
            RUN_ID, station="S1", version="1", config_sha256="c", model_id="m1", started_unix_ns=1
        )
        yield database, writer


@pytest.fixture(name="recording", scope="session")
def recording_fixture() -> Callable[[Path], object]:
    return recording


@pytest.fixture(scope="session")
def empty_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed database with one run and no part, to be copied: a migration takes longer than most tests."""
    path = tmp_path_factory.mktemp("empty") / "station.db"
    with recording(path):
        pass
    return path


@pytest.fixture
def database_path(tmp_path: Path, empty_record: Path) -> Path:
    return Path(shutil.copy(empty_record, tmp_path / "station.db"))


@pytest.fixture
def old_record(tmp_path: Path) -> Path:
    """What the first version of this program has written: three parts, two events, and their mark."""
    path = tmp_path / "station.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / "records" / "0001.sql").read_text())
        heads = {
            table: connection.execute(
                f"SELECT id, hex(hash) FROM {table} ORDER BY id DESC LIMIT 1"
            ).fetchone()
            for table in ("part", "event")
        }
    path.with_name("station.db.mark").write_text(json.dumps(heads))
    return path
