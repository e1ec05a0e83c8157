"""How messages look between the engine and its screens: JSON, and for pictures JSON plus raw bytes. No
pickle.

A message is one ZeroMQ part, since CONFLATE (latest only) knows no multi-part messages:

    events socket     b"V" + JSON VerdictMessage  |  b"S" + JSON StatusMessage
    preview socket    4-byte big-endian header length + JSON header + image bytes + map bytes
"""

import json
import struct
from dataclasses import asdict, fields
from typing import Any

from pydantic import TypeAdapter

from station.types import Preview, StatusMessage, VerdictMessage

_HEADER_LENGTH = struct.Struct(">I")
_MAX_HEADER_BYTES = 65_536
_MAX_SIDE_PX = 65_535
_VERDICT, _STATUS = TypeAdapter(VerdictMessage), TypeAdapter(StatusMessage)
_PREVIEW = TypeAdapter(Preview)


class WireError(Exception):
    """Bytes that are no message of ours."""


def encode_event(message: VerdictMessage | StatusMessage) -> bytes:
    """One verdict or status as bytes."""
    kind = b"V" if isinstance(message, VerdictMessage) else b"S"
    return kind + json.dumps(asdict(message), separators=(",", ":")).encode()


def decode_event(data: bytes) -> VerdictMessage | StatusMessage:
    """The verdict or status in `data`.

    Raises:
        WireError: it is neither.
    """
    try:
        match data[:1]:
            case b"V":
                return _VERDICT.validate_json(data[1:])
            case b"S":
                return _STATUS.validate_json(data[1:])
    except ValueError as error:
        raise WireError(f"damaged event message: {_one_line(error)}") from error
    raise WireError(f"unknown event message {data[:1]!r}")


def encode_preview(preview: Preview) -> bytes:
    """A preview as one message."""
    header = {
        field.name: getattr(preview, field.name)
        for field in fields(preview)
        if field.name not in {"image_rgb", "map_u8"}
    }
    head = json.dumps(header, separators=(",", ":")).encode()
    return b"".join((_HEADER_LENGTH.pack(len(head)), head, preview.image_rgb, preview.map_u8))


def decode_preview(data: bytes) -> Preview:
    """The preview in `data`.

    Raises:
        WireError: the bytes are no preview, or their lengths do not add up.
    """
    try:
        (head_bytes,) = _HEADER_LENGTH.unpack_from(data)
        if head_bytes > _MAX_HEADER_BYTES:
            raise WireError(f"preview header of {head_bytes} bytes, at most {_MAX_HEADER_BYTES} expected")
        body_start = _HEADER_LENGTH.size + head_bytes
        header = json.loads(data[_HEADER_LENGTH.size : body_start])
        width, height, map_width, map_height = (
            _side(header, name) for name in ("width", "height", "map_width", "map_height")
        )
        image_end = body_start + width * height * 3
        map_end = image_end + map_width * map_height
        if map_end != len(data):
            raise WireError(f"preview of {len(data)} bytes, {map_end} announced")
        pixels = {"image_rgb": data[body_start:image_end], "map_u8": data[image_end:map_end]}
        return _PREVIEW.validate_python(header | pixels)
    except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
        raise WireError(f"damaged preview message: {_one_line(error)}") from error


def _side(header: Any, name: str) -> int:
    side = header[name]
    if type(side) is not int or not 0 <= side <= _MAX_SIDE_PX:
        raise ValueError(f"{name} must be 0 to {_MAX_SIDE_PX} px")
    return side


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
