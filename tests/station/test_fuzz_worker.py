"""Whatever a worker says: a message, or one line that says why it is none."""

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_fuzz_wire import JSON

from station.worker_link import BadMessage, decode
from station.worker_wire import Ready, Result
from tests.fuzzing import bounded, examples, is_one_line, mutations

pytestmark = pytest.mark.fuzz

LIMITS = {"recheck": 0.9, "reject": 1.0, "false_reject_bound": 0.01, "confidence": 0.95}
MESSAGES = (
    {"kind": "ready", "model": {"model_id": "0", "model_name": "n", "limits": LIMITS}},
    {"kind": "failed", "message": "m"},
    {
        "kind": "result",
        "part_seq": 1,
        "slot": 0,
        "score": 0.5,
        "map_height": 8,
        "map_width": 8,
        "timings_ms": {"a": 1},
    },
    {"kind": "error", "part_seq": 1, "slot": 0, "message": "m"},
)
ENCODED = [json.dumps(message).encode() for message in MESSAGES]


@st.composite
def other_fields(draw: st.DrawFn) -> bytes:
    message: dict[str, object] = dict(draw(st.sampled_from(MESSAGES)))
    for key in draw(st.lists(st.sampled_from(sorted(message)), min_size=1, max_size=3)):
        message[key] = draw(JSON)
    return json.dumps(message).encode()


def test_what_workers_say_is_understood() -> None:
    assert [decode(data).kind for data in ENCODED] == ["ready", "failed", "result", "error"]
    no_number = decode(ENCODED[2].replace(b"0.5", b"NaN"))
    assert isinstance(no_number, Result)
    assert math.isnan(no_number.score), "which is for the decision to judge"


@examples(150)
@given(data=st.binary(max_size=100) | st.sampled_from(ENCODED).flatmap(mutations) | other_fields())
@example(data=b"")
@example(data=b"[" * 65_536)
@example(data=ENCODED[2].replace(b'{"a": 1}', b'{"\\u001e\\n": null}'))  # a separator of lines in the message
@example(data=ENCODED[0].replace(b"1.0", b"Infinity"))
@example(data=ENCODED[0].replace(b"0.9", b"NaN"))
@example(data=ENCODED[0].replace(b"0.9", b"7.0"))
@example(data=ENCODED[2].replace(b"0.5", b'"good"'))
@example(data=ENCODED[2].replace(b"0.5", b"null"))
def test_anything_else_is_refused_in_one_line(data: bytes) -> None:
    with bounded():
        try:
            message = decode(data)
        except BadMessage as error:
            assert is_one_line(error), repr(str(error))
            return
    match message:
        case Ready():
            assert message.model.limits.recheck <= message.model.limits.reject < math.inf
        case Result():
            assert type(message.score) is float
            assert all(map(math.isfinite, message.timings_ms.values()))
