"""Acknowledged means kept: a writing program is killed, or its disk is full, and every such row is there."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

import db
from db.archive import Archive
from db.chain import verify
from db.errors import DiskFull
from db.models import Hourly, Part
from db.queries import read_known_files
from db.session import Database, open_database, open_read_only
from db.writer import PartRow, Writer

MakePart = Callable[..., PartRow]
Recording = Callable[[Path], AbstractContextManager[tuple[Database, Writer]]]

WRITING_PROGRAM = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[2])
from conftest import make_part
from db.archive import Archive
from db.session import open_database
from db.writer import Writer
path = Path(sys.argv[1])
image_rgb = np.zeros((32, 32, 3), np.uint8)
writer = Writer(open_database(path))
number = writer.last_part_seq()
archive = Archive(path.parent / "images")
while True:
    batch = []
    for _ in range(5):
        number += 1
        files = archive.store(f"part-{number}", 10**18, image_rgb, None, lossless=True)
        batch.append(make_part(number, image_path=files.image_path))
    writer.commit(batch)
    print(number, flush=True)
"""


def test_kill_9_loses_no_acknowledged_row_and_no_picture_of_a_row(database_path: Path) -> None:
    acknowledged = 0
    for trial in range(4):
        program = subprocess.Popen(
            [sys.executable, "-c", WRITING_PROGRAM, database_path, Path(__file__).parent],
            cwd=Path(db.__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert program.stdout is not None
        with program, program.stdout:
            for _ in range(7 + 5 * trial):
                acknowledged = int(program.stdout.readline())
            program.send_signal(signal.SIGKILL)
            for line in program.stdout.read().splitlines(keepends=True):
                acknowledged = int(line) if line.endswith("\n") else acknowledged
        with closing(open_database(database_path)) as database, database.connect() as connection:
            assert database.loss == ""
            check = verify(connection, "part")
            assert check.fault == ""
            assert acknowledged <= check.rows <= acknowledged + 5
            assert connection.execute(select(func.sum(Hourly.parts))).scalar() == check.rows
            known = read_known_files(connection)
            assert len(known) == check.rows
            root = database_path.parent / "images"
            assert all((root / path).stat().st_size > 0 for path in known)
            Archive(root).sweep(known)
            assert {path.relative_to(root).as_posix() for path in root.rglob("*.*")} == known


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small tmpfs")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_loses_nothing_and_lets_go_on_once_there_is_space(
    small_disk: Path, make_part: MakePart, recording: Recording
) -> None:
    path = small_disk / "station.db"
    ballast = small_disk / "ballast"
    with recording(path) as (database, writer):
        ballast.write_bytes(bytes(300_000))
        number = 0
        with pytest.raises(DiskFull, match=r"station\.db: no space left"):
            while True:
                batch = [make_part(number + offset) for offset in range(1, 21)]
                writer.commit(batch)
                number += 20
        with database.connect() as connection:
            assert verify(connection, "part").rows == number > 0
        ballast.unlink()
        writer.commit(batch)
        with database.connect() as connection:
            check = verify(connection, "part")
            assert (check.rows, check.fault) == (number + 20, "")
    with closing(open_read_only(path)) as database, database.connect() as connection:
        assert connection.execute(select(func.count()).select_from(Part)).scalar() == number + 20


def test_a_full_disk_leaves_no_half_picture(small_disk: Path) -> None:
    archive = Archive(small_disk / "images")
    noise = np.random.default_rng(1).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    stored: list[str | None] = []
    with pytest.raises(DiskFull, match="no space left"):
        stored.extend(
            archive.store(f"part-{n}", 10**18, noise, None, lossless=True).image_path for n in range(20)
        )
    assert 0 < len(stored) < 20
    assert sorted(path.relative_to(archive.root).as_posix() for path in archive.root.rglob("*.*")) == sorted(
        path for path in stored if path
    )


def test_a_record_cannot_be_made_on_a_full_disk(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "ballast").write_bytes(bytes(2_000_000))
    with pytest.raises(DiskFull, match="no space left"):
        open_database(small_disk / "station.db")
