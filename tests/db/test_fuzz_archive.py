"""Whatever lies in the archive: a picture, or one line that names the file. The screen reads these."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from db.archive import Archive
from db.errors import RecordDamaged
from tests.fuzzing import announced_png, bounded, examples, is_one_line, mutations

pytestmark = pytest.mark.fuzz

RAMP = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
GREY = np.full((6, 8, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return Archive(tmp_path_factory.mktemp("fuzz"))


def stored() -> tuple[bytes, bytes]:
    """A picture and a map as the archive writes them."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        files = Archive(Path(folder)).store("a", 0, GREY, RAMP, lossless=True)
        assert files.image_path
        assert files.map_path
        return Path(folder, files.image_path).read_bytes(), Path(folder, files.map_path).read_bytes()


PICTURE, MAP = stored()


def with_scale(text: bytes) -> bytes:
    """The map with another text in the place of its scale (the decoder does not check that part's sum)."""
    at = MAP.index(b"varad-map") + len(b"varad-map") + 1
    length = int.from_bytes(MAP[33:37], "big") - len(b"varad-map") - 1
    return MAP[:at] + text.ljust(length)[:length] + MAP[at + length :]


@examples(150)
@given(content=st.binary(max_size=200) | mutations(PICTURE) | mutations(MAP))
@example(content=announced_png(60_000, 60_000))
@example(content=with_scale(b"1.0"))
@example(content=with_scale(b"nan inf"))
@example(content=with_scale(b"one two"))
def test_what_is_read_back_is_a_picture_or_one_line(archive: Archive, content: bytes) -> None:
    (archive.root / "x.png").write_bytes(content)
    for load, dimensions in ((archive.load_image, 3), (archive.load_map, 2)):
        with bounded():
            try:
                pixels = load("x.png")
            except RecordDamaged as error:
                assert is_one_line(error)
                assert "x.png" in str(error)
                continue
        assert pixels.ndim == dimensions
        assert pixels.size
