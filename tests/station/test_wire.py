import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from station.wire import WireError, decode_event, decode_preview, encode_event, encode_preview

VERDICT = VerdictMessage(
    7, "u-7", Verdict.REJECT, "above reject limit", 1.5, 0.9, 1.0, 42.0, 5, ((0.1, 0.2, 0.3, 0.4),)
)
STATUS = StatusMessage(
    station="S",
    state=EngineState.RUNNING,
    state_reason="",
    recipe="r",
    lot="l",
    user="u",
    model="m",
    shift="A",
    shift_started_unix_ns=1,
    ledger=LedgerSnapshot(triggered=2, passed=1, in_flight=1),
    shift_counts={"PASS": 1},
    reject_streak=0,
    yield_target_percent=97.0,
    latency_ms={"p50": 1.0},
    parts_per_s=4.0,
    takt_ms=250.0,
    devices=(DeviceStatus("camera", "ok", "fine"),),
    alarms=(Alarm("k", "high", "t", "a", 3),),
    trend=((1.0, 99.0),),
    sent_unix_ns=9,
)
PREVIEW = Preview(7, "CAM 1", Verdict.PASS, 5, 4.0, 2, 1, b"abcdef", 1, 2, b"xy", {"exposure_us": 20})


def test_round_trips() -> None:
    assert decode_event(encode_event(VERDICT)) == VERDICT
    assert decode_event(encode_event(replace(VERDICT, score=None))).score is None
    assert decode_event(encode_event(STATUS)) == STATUS
    back = decode_preview(encode_preview(PREVIEW))
    assert (back.image_rgb, back.map_u8, back.verdict, back.facts) == (
        b"abcdef",
        b"xy",
        Verdict.PASS,
        {"exposure_us": 20},
    )


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_event(data)
    with pytest.raises(WireError):
        decode_preview(data)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_message_is_refused_or_still_well_formed(position: int, value: int) -> None:
    for message, decode in ((encode_event(STATUS), decode_event), (encode_preview(PREVIEW), decode_preview)):
        damaged = bytearray(message)
        damaged[position % len(damaged)] = value
        with contextlib.suppress(WireError):
            decode(bytes(damaged))
    for cut in range(0, 40, 7):
        with pytest.raises(WireError):
            decode_preview(encode_preview(PREVIEW)[: -1 - cut])
