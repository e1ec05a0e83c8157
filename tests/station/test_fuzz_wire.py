"""Whatever comes over the wires: screens drop it, the line answers garbage with an error and runs on."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import zmq
from hypothesis import example, given
from hypothesis import strategies as st
from line_runs import PASS, assert_whole
from scripted_line import STAND_IN, ScriptedCamera, free_port, line_config
from test_wire import PREVIEW, STATUS, VERDICT

from station.client import COMMAND_OFFSET, CommandClient, CommandError, endpoint
from station.engine import Engine
from station.types import Preview, StatusMessage, VerdictMessage
from station.wire import WireError, decode_event, decode_preview, encode_event, encode_preview
from tests.fuzzing import bounded, examples, is_one_line, mutations

pytestmark = pytest.mark.fuzz

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
EVENTS = (encode_event(VERDICT), encode_event(STATUS))
HEADER = json.loads(encode_preview(PREVIEW)[4:].split(b"}}")[0] + b"}}")


def preview_of(header: object, pixels: bytes) -> bytes:
    head = json.dumps(header).encode()
    return len(head).to_bytes(4, "big") + head + pixels


@st.composite
def other_fields(draw: st.DrawFn) -> bytes:
    """A message some of whose fields hold something else, or are missing."""
    event = draw(st.sampled_from(EVENTS))
    body = json.loads(event[1:])
    for key in draw(st.lists(st.sampled_from(sorted(body)), min_size=1, max_size=3)):
        body[key] = draw(JSON)
    return event[:1] + json.dumps(body).encode()


@examples(150)
@given(data=st.binary(max_size=200) | st.sampled_from(EVENTS).flatmap(mutations) | other_fields())
@example(data=b"V" + b"[" * 100_000)
@example(data=b"S" + b'{"a":' * 100_000)
@example(data=EVENTS[0].replace(b"[0.1,", b"[1" + b"0" * 400 + b","))
@example(data=EVENTS[0].replace(b'"part_seq":7', b'"part_seq":"seven"'))
@example(data=EVENTS[1].replace(b'"trend":[[1.0,', b'"trend":[[[],'))
def test_events(data: bytes) -> None:
    with bounded():
        try:
            message = decode_event(data)
        except WireError as error:
            assert is_one_line(error)
            return
    assert isinstance(message, VerdictMessage | StatusMessage)
    assert type(decode_event(encode_event(message))) is type(message)


@examples(150)
@given(
    data=st.binary(max_size=200)
    | mutations(encode_preview(PREVIEW))
    | st.builds(
        lambda changes, pixels: preview_of({**HEADER, **changes}, pixels),
        st.dictionaries(st.sampled_from(sorted(HEADER)), JSON, max_size=3),
        st.binary(max_size=12),
    )
    | st.builds(preview_of, JSON, st.binary(max_size=12))
)
@example(data=preview_of({**HEADER, "width": "x", "height": 10**13}, b""))
@example(data=preview_of({**HEADER, "width": -1, "height": -2}, b"abcdefxy"))
@example(data=preview_of({**HEADER, "width": 2.0}, b"abcdefxy"))
@example(data=preview_of({**HEADER, "fps": "fast"}, b"abcdefxy"))
@example(data=(60_000).to_bytes(4, "big") + b"[" * 60_000)
def test_previews(data: bytes) -> None:
    with bounded():
        try:
            message = decode_preview(data)
        except WireError as error:
            assert is_one_line(error)
            return
    assert isinstance(message, Preview)
    assert len(message.image_rgb) == 3 * message.width * message.height
    assert len(message.map_u8) == message.map_width * message.map_height


class RawScreen:
    """Sends parts as they are to the command socket of a line that runs, and takes the answer."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.port = engine.config.publishing.port
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        self._socket.connect(endpoint("127.0.0.1", self.port, COMMAND_OFFSET))

    def ask(self, *parts: bytes) -> dict[str, object]:
        self._socket.send_multipart(parts)
        assert self._socket.poll(20_000), f"no answer to {parts}"
        answer = json.loads(self._socket.recv())
        assert isinstance(answer, dict)
        assert answer["ok"] or answer["error"]
        assert self.engine.fault == ""
        return answer

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawScreen]:
    config = line_config(tmp_path_factory.mktemp("line"), trigger={"interval_ms": 100.0})
    engine = Engine(config, cameras=[ScriptedCamera([PASS])], command=STAND_IN)
    engine.start()
    raw = RawScreen(engine)
    try:
        yield raw
        assert raw.ask(b'{"command": "shutdown"}') == {"ok": True}
    finally:
        raw.close()
        account = engine.stop("the test is over")
    assert_whole(account, engine, account.triggered)


COMMAND = json.dumps({"command": "pause", "reason": "a coffee", "user": "anna"}).encode()
NAMES = st.sampled_from(("start", "pause", "acknowledge", "", "PAUSE", "__class__"))


@examples(200)
@given(
    parts=st.lists(st.binary(max_size=100), min_size=1, max_size=4)
    | st.builds(lambda value: [json.dumps(value).encode()], JSON)
    | mutations(COMMAND, most=3).map(lambda data: [data])
)
@example(parts=[b"[" * 60_000])
@example(parts=[b'{"command": "pause", "reason": ' + b"9" * 5000 + b"}"])
@example(parts=[b'{"command": "pause", "reason": "\\ud800"}'])
def test_garbage_is_answered_with_an_error(screen: RawScreen, parts: list[bytes]) -> None:
    answer = screen.ask(*parts)
    if answer["ok"]:
        (command,) = parts
        assert json.loads(command)["command"] in ("start", "pause", "acknowledge", "shutdown")


@examples(100)
@given(name=NAMES | JSON, arguments=st.dictionaries(st.sampled_from(("reason", "user", "key", "x")), JSON))
@example(name="pause", arguments={"reason": "\0", "user": "\x1b[2J\n" * 40})
@example(name="acknowledge", arguments={"key": {"a": [1]}})
def test_commands_with_any_arguments_are_answered(
    screen: RawScreen, name: object, arguments: dict[str, object]
) -> None:
    screen.ask(json.dumps({**arguments, "command": name}).encode())


@examples(50)
@given(data=st.binary(max_size=300), offset=st.integers(0, 2), greets=st.booleans())
def test_bytes_that_are_no_zeromq_at_all(screen: RawScreen, data: bytes, offset: int, greets: bool) -> None:
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 1 + 31) if greets else b""
    plain = socket.create_connection(("127.0.0.1", screen.port + offset), timeout=20)
    with plain, contextlib.suppress(ConnectionError):
        plain.sendall(greeting + data)
    screen.ask(b'{"command": "start"}')


@pytest.fixture(scope="module")
def answering() -> Iterator[Callable[[bytes], CommandClient]]:
    """A client of something that answers what it is told to."""
    port, answer, ended = free_port(), [b""], threading.Event()
    context = zmq.Context()

    def serve() -> None:
        replier = context.socket(zmq.REP)
        replier.bind(endpoint("127.0.0.1", port, COMMAND_OFFSET))
        while not ended.is_set():
            if replier.poll(20):
                replier.recv()
                replier.send(answer[0])
        replier.close(0)

    thread = threading.Thread(target=serve)
    thread.start()
    client = CommandClient("127.0.0.1", port, 20_000)

    def says(data: bytes) -> CommandClient:
        answer[0] = data
        return client

    yield says
    ended.set()
    thread.join()
    client.close()
    context.destroy(linger=0)


@examples(100)
@given(data=st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
@example(data=b"[" * 100_000)
@example(data=b"[]")
@example(data=b'{"ok": false, "error": 7}')
def test_a_screen_survives_any_answer(answering: Callable[[bytes], CommandClient], data: bytes) -> None:
    with contextlib.suppress(CommandError):
        assert answering(data).send("start")["ok"]
