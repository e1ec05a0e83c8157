"""What the tests that feed random input to the station share: how much of it, how it is made, what must hold.

They are marked `fuzz`: a few hundred inputs each in every run, 10 000 with `make fuzz`.
"""

import resource
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st

MAX_SECONDS = 20.0
"""For one input, on a machine that is doing something else as well."""


def examples(count: int) -> settings:
    """So many in the normal run."""
    if settings.get_current_profile_name() == "fuzz":
        return settings()
    return settings(max_examples=count)


@contextmanager
def bounded(megabytes: int = 1500) -> Iterator[None]:
    """What runs inside takes bounded time, and fails when it asks for more memory than that on top."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    begun_s = time.monotonic()
    limit = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    taken_s = time.monotonic() - begun_s
    assert taken_s < MAX_SECONDS, f"{taken_s:.1f} s for one input"


def is_one_line(error: BaseException) -> bool:
    """Whether a person can be shown its message in one line."""
    return len(str(error).splitlines()) == 1


@st.composite
def mutations(draw: st.DrawFn, data: bytes, most: int = 8) -> bytes:
    """`data` with a few of its places cut out, overwritten, doubled or filled, or its end missing."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, most))):
        start = draw(st.integers(0, len(changed)))
        length = draw(st.integers(0, 64))
        match draw(st.sampled_from(("cut", "write", "double", "flip", "number", "end"))):
            case "cut":
                del changed[start : start + length]
            case "write":
                changed[start : start + length] = draw(st.binary(max_size=16))
            case "double":
                changed[start:start] = changed[start : start + length]
            case "flip" if start < len(changed):
                changed[start] ^= 1 << draw(st.integers(0, 7))
            case "number":
                width = draw(st.sampled_from((1, 2, 4, 8)))
                value = draw(st.sampled_from((0, 1, 2**31 - 1, 2**63 - 1, 2**64 - 1))) % 256**width
                changed[start : start + width] = value.to_bytes(
                    width, draw(st.sampled_from(("little", "big")))
                )
            case "end" if draw(st.booleans()):
                del changed[start:]
    return bytes(changed)


def announced_png(width_px: int, height_px: int) -> bytes:
    """A PNG whose header announces this size, and that holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        tail = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + tail

    head = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")
