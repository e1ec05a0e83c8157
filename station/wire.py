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

from station.types import (
    Alarm,
    DeviceStatus,
    EngineState,
    LedgerSnapshot,
    Preview,
    StatusMessage,
    Verdict,
    VerdictMessage,
)

_HEADER_LENGTH = struct.Struct(">I")
_MAX_HEADER_BYTES = 65_536


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
        body = json.loads(data[1:])
        match data[:1]:
            case b"V":
                return _verdict(body)
            case b"S":
                return _status(body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WireError(f"damaged event message: {error}") from error
    raise WireError(f"unknown event message {data[:1]!r}")


def _verdict(body: dict[str, Any]) -> VerdictMessage:
    body["verdict"] = Verdict(body["verdict"])
    body["regions"] = tuple((float(x), float(y), float(w), float(h)) for x, y, w, h in body["regions"])
    return VerdictMessage(**body)


def _status(body: dict[str, Any]) -> StatusMessage:
    body["state"] = EngineState(body["state"])
    body["ledger"] = LedgerSnapshot(**body["ledger"])
    body["devices"] = tuple(DeviceStatus(**device) for device in body["devices"])
    body["alarms"] = tuple(Alarm(**alarm) for alarm in body["alarms"])
    body["trend"] = tuple((float(unix_s), float(percent)) for unix_s, percent in body["trend"])
    return StatusMessage(**body)


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
        header["verdict"] = Verdict(header["verdict"])
        image_end = body_start + header["width"] * header["height"] * 3
        map_end = image_end + header["map_width"] * header["map_height"]
        if min(
            header["width"], header["height"], header["map_width"], header["map_height"]
        ) < 0 or map_end != len(data):
            raise WireError(f"preview of {len(data)} bytes, {map_end} announced")
        return Preview(**header, image_rgb=data[body_start:image_end], map_u8=data[image_end:map_end])
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise WireError(f"damaged preview message: {error}") from error
