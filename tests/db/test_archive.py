from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from db.archive import Archive, StoredFiles, Swept
from db.errors import RecordDamaged, RecordError, RecordMissing

NOON_NS = 1_795_521_600 * 10**9  # 2026-11-24 12:00 UTC


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return Archive(tmp_path_factory.mktemp("archive") / "images")


def gradient(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, x + y], axis=2).astype(np.uint8)


@settings(max_examples=20, deadline=None)
@given(image_rgb=hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_a_reject_is_kept_pixel_for_pixel(archive: Archive, image_rgb: NDArray[np.uint8]) -> None:
    stored = archive.store("a", NOON_NS, image_rgb, None, lossless=True)
    assert stored == StoredFiles("2026/11/24/12/a.png", None)
    assert stored.image_path is not None
    np.testing.assert_array_equal(archive.load_image(stored.image_path), image_rgb)


def test_a_pass_is_kept_as_jpeg_in_its_own_colours(archive: Archive) -> None:
    image_rgb = gradient(64, 80)
    stored = archive.store("b", NOON_NS, image_rgb, None, lossless=False)
    assert stored.image_path == "2026/11/24/12/b.jpg"
    loaded = archive.load_image(stored.image_path)
    assert np.abs(loaded.astype(int) - image_rgb).mean() < 3


@settings(max_examples=60, deadline=None)
@given(
    anomaly_map=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(width=32)
    )
)
def test_a_map_is_kept_to_half_a_step_of_its_own_range(
    archive: Archive, anomaly_map: NDArray[np.float32]
) -> None:
    path = archive.store("c", NOON_NS, None, anomaly_map, lossless=True).map_path
    assert path == "2026/11/24/12/c.map.png"
    loaded = archive.load_map(path)
    finite = np.isfinite(anomaly_map)
    np.testing.assert_array_equal(np.isfinite(loaded), finite)
    if finite.any():
        kept = anomaly_map[finite].astype(float)
        half_step = np.ptp(kept) / 65534 / 2
        rounding = np.finfo(np.float32).eps * np.abs(kept).max()
        assert np.abs(loaded[finite] - kept).max() <= half_step * 1.001 + rounding


def test_no_temporary_file_stays(archive: Archive) -> None:
    archive.store("d", NOON_NS, gradient(8, 8), np.ones((2, 2), np.float32), lossless=True)
    assert not list(archive.root.rglob("*.tmp"))


def test_sweep_removes_orphans_and_temporary_files_only(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "images")
    assert archive.sweep(set()) == Swept()
    kept = archive.store("kept", NOON_NS, gradient(8, 8), np.ones((2, 2), np.float32), lossless=True)
    archive.store("orphan", NOON_NS, gradient(8, 8), None, lossless=False)
    folder = tmp_path / "images/2026/11/24/12"
    (folder / "cut.png.tmp").write_bytes(b"half")
    foreign = tmp_path / "images" / "README.txt"
    foreign.write_text("not ours")
    assert kept.image_path is not None and kept.map_path is not None
    assert archive.sweep({kept.image_path, kept.map_path}) == Swept(removed=1)
    assert sorted(path.name for path in folder.iterdir()) == ["kept.map.png", "kept.png"]
    assert foreign.exists()


def test_a_lost_database_never_costs_a_picture(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "images")
    folder = archive.root / "2026/11/24/12"
    folder.mkdir(parents=True)
    for number in range(501):
        (folder / f"part-{number}.png").touch()
    assert archive.sweep(set()) == Swept(left=501)
    assert archive.sweep(None) == Swept()
    gone = "2026/11/24/12/part-999.png"
    assert archive.sweep({gone}) == Swept(left=501, missing=(gone,))
    assert archive.sweep({"2026/11/24/12/part-0.png"}) == Swept(removed=500)


def test_what_retention_has_let_go_of_is_not_missing(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "images")
    for path in ("2026/11/24/10/a.png", "2026/11/24/12/b.png", "2026/11/24/12/b.jpg"):
        (archive.root / path).parent.mkdir(parents=True, exist_ok=True)
        (archive.root / path).touch()
    known = {path.relative_to(archive.root).as_posix() for path in archive.root.rglob("*.*g")}
    older = {"2026/11/24/09/a.png", "2026/11/24/11/a.jpg"}
    assert archive.sweep(known | older) == Swept()
    gone = ("2026/11/24/11/c.map.png", "2026/11/24/13/d.jpg")
    assert archive.sweep(known | older | set(gone)) == Swept(missing=gone)
    for path in known:
        (archive.root / path).unlink()
    assert archive.sweep(known) == Swept(missing=tuple(sorted(known))), "the whole folder is gone"


@pytest.mark.parametrize("uid", ["", "../x", "a/b", ".hidden", "a b", "x" * 129, "a\0"])
def test_a_uid_that_is_no_file_name_is_refused(archive: Archive, uid: str) -> None:
    with pytest.raises(ValueError, match="uid must be"):
        archive.store(uid, NOON_NS, gradient(4, 4), None, lossless=True)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4)])
def test_an_image_of_another_shape_is_refused(archive: Archive, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="image_rgb must be"):
        archive.store("e", NOON_NS, np.zeros(shape, np.uint8), None, lossless=True)


def test_what_is_gone_or_damaged_says_so(archive: Archive) -> None:
    with pytest.raises(RecordMissing, match="no longer kept"):
        archive.load_image("2026/11/24/12/absent.png")
    stored = archive.store("f", NOON_NS, gradient(8, 8), np.ones((2, 2), np.float32), lossless=True)
    assert stored.image_path is not None
    with pytest.raises(RecordDamaged, match="not an anomaly map"):
        archive.load_map(stored.image_path)
    for content in (b"", b"\x89PNG\r\n", b"nonsense" * 20):
        (archive.root / stored.image_path).write_bytes(content)
        with pytest.raises(RecordDamaged, match=r"f\.png"):
            archive.load_image(stored.image_path)
        with pytest.raises(RecordDamaged, match=r"f\.png"):
            archive.load_map(stored.image_path)
    with pytest.raises(RecordError, match="outside the archive"):
        archive.load_image("../../etc/passwd")


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file where the folder should be")
    with pytest.raises(RecordError, match="images"):
        Archive(tmp_path / "images").store("a", NOON_NS, gradient(4, 4), None, lossless=True)
