"""The whole line on a scripted camera, with the real worker process around a stand-in detector."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from line_runs import PASS, RECHECK, REJECT, assert_whole, run_line
from scripted_line import STAND_IN, ScriptedCamera, line_config
from standin import FAULTS

from db.archive import Archive
from db.session import open_read_only
from drivers.outputs import SimulatedOutput
from station.client import CommandClient, CommandError, LineSubscriber
from station.engine import Engine
from station.types import EngineState, Preview, StatusMessage, Verdict, VerdictMessage


def test_each_kind_of_part_gets_its_verdict_reason_row_and_gate(tmp_path: Path, no_leaks: None) -> None:
    script = [
        PASS,
        RECHECK,
        REJECT,
        (0, 0, FAULTS["nan"]),
        (0, 0, FAULTS["error"]),
        "busy",
        "missing",
        "failed",
        "small",
    ]
    config = line_config(tmp_path, trigger={"interval_ms": 40.0, "frame_timeout_ms": 30.0})
    gate = SimulatedOutput()
    engine = Engine(config, parts=len(script), cameras=[ScriptedCamera(script)], gate=gate, command=STAND_IN)
    rows = assert_whole(run_line(engine), engine, len(script))
    assert [(row["verdict"], row["reason"]) for row in rows] == [
        ("PASS", "below limit"),
        ("RECHECK", "above recheck limit"),
        ("REJECT", "above reject limit"),
        ("NOT_INSPECTED", "score not finite"),
        ("NOT_INSPECTED", "worker error"),
        ("NOT_INSPECTED", "trigger missed"),
        ("NOT_INSPECTED", "frame missing"),
        ("NOT_INSPECTED", "frame failed"),
        ("NOT_INSPECTED", "wrong image size"),
    ]
    assert len(gate.on_ns) == len(script) - 1
    assert engine.fault == ""
    assert [row["part_seq"] for row in rows] == list(range(1, len(script) + 1))


def test_rejects_keep_their_picture_and_map_lossless(tmp_path: Path) -> None:
    config = line_config(tmp_path, record={"pass_image_every": 2})
    engine = Engine(config, parts=4, cameras=[ScriptedCamera([PASS, REJECT])], command=STAND_IN)
    run_line(engine)
    database = open_read_only(config.database_path)
    with database.connect() as connection:
        rows = connection.exec_driver_sql("SELECT verdict, image_path, map_path FROM part ORDER BY id").all()
    database.close()
    archive = Archive(config.images_dir)
    assert [row.image_path and row.image_path[-3:] for row in rows] == [None, "png", "jpg", "png"]
    assert archive.load_image(rows[1].image_path)[0, 0].tolist() == list(REJECT)
    assert archive.load_map(rows[1].map_path).mean() == pytest.approx(1.5)


STEP = st.sampled_from(["busy", "missing", "failed", "small"]) | st.tuples(
    st.sampled_from([50, 95, 150]),
    st.sampled_from([0, 0, 0, 1, 5, 20]),  # thinking time / 4 ms
    st.sampled_from([0, 0, 0, 0, 0, 0, FAULTS["crash"], FAULTS["error"], FAULTS["nan"], FAULTS["hang"]]),
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    script=st.lists(STEP, min_size=1, max_size=25),
    interval_ms=st.floats(5, 40),
    queue_length=st.integers(1, 4),
    kill_after_s=st.none() | st.floats(0, 0.5),
    kill_with=st.sampled_from([signal.SIGKILL, signal.SIGSTOP]),
    stop_after_s=st.none() | st.floats(0, 0.4),
)
def test_the_equation_holds_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory,
    script: list[tuple[int, int, int] | str],
    interval_ms: float,
    queue_length: int,
    kill_after_s: float | None,
    kill_with: signal.Signals,
    stop_after_s: float | None,
) -> None:
    config = line_config(
        tmp_path_factory.mktemp("line"),
        trigger={"interval_ms": interval_ms, "frame_timeout_ms": 10.0},
        inspection={"queue_length": queue_length, "deadline_ms": 60.0, "hang_ms": 150.0},
        record={"linger_ms": 5.0},
    )
    gate = SimulatedOutput()
    engine = Engine(config, parts=len(script), cameras=[ScriptedCamera(script)], gate=gate, command=STAND_IN)
    engine.start()

    def kill() -> None:
        pid = engine.worker_pid
        if pid is not None:
            os.kill(pid, kill_with)

    killer = threading.Timer(kill_after_s or 0, kill) if kill_after_s is not None else None
    if killer:
        killer.start()
    while not engine.done.wait(0.002):
        assert engine.ledger.snapshot().balanced()
        if (
            stop_after_s is not None
            and engine.ledger.snapshot().triggered > stop_after_s * 1000 / interval_ms
        ):
            break
    account = engine.stop("test is over")
    if killer:
        killer.join()
    rows = assert_whole(account, engine, account.triggered)
    assert account.triggered <= len(script)
    assert len(gate.on_ns) == account.triggered - account.passed
    for row, step in zip(rows, script, strict=False):
        if row["verdict"] == "PASS":
            assert isinstance(step, tuple)
            assert step[0] == 50
            assert step[2] == FAULTS["none"]
            assert float(str(row["latency_ms"])) <= 60.0


def test_an_overloaded_line_still_inspects_what_it_can(tmp_path: Path) -> None:
    """Twice as many parts as the worker can judge: about half of them get a verdict, not none."""
    slow = [(50, 10, 0)]  # 40 ms to think
    changes = {"trigger": {"interval_ms": 20.0}, "inspection": {"deadline_ms": 120.0, "queue_length": 8}}
    engine = Engine(
        line_config(tmp_path, **changes), parts=100, cameras=[ScriptedCamera(slow)], command=STAND_IN
    )
    account = run_line(engine)
    assert_whole(account, engine, 100)
    assert account.passed >= 25
    assert account.not_inspected >= 25


def test_no_command_can_harm_the_line(tmp_path: Path, no_leaks: None) -> None:
    config = line_config(tmp_path)
    engine = Engine(config, cameras=[ScriptedCamera([PASS])], command=STAND_IN)
    engine.start()
    context = zmq.Context()
    socket = context.socket(zmq.REQ)
    socket.connect(f"tcp://127.0.0.1:{config.publishing.port + 2}")
    surrogate = b'{"command": "pause", "reason": "\\ud800"}'
    for parts in ([b"a", b"b"], [b""], [b"[]"], [b"{}"], [b'{"command": 7}'], [surrogate], [b"[" * 5000]):
        socket.send_multipart(parts)
        assert socket.poll(10_000), parts
        assert b'"ok": false' in socket.recv()
    context.destroy(linger=0)
    account = engine.stop("done")
    assert engine.fault == ""
    assert_whole(account, engine, account.triggered)


def test_a_line_that_stops_is_not_started_again(tmp_path: Path) -> None:
    engine = Engine(line_config(tmp_path), cameras=[ScriptedCamera([PASS])], command=STAND_IN)
    engine.start()
    engine.stop("done")
    engine.run_line()
    engine.pause("too late", "anna")
    assert engine.state()[0] is EngineState.STOPPED
    assert not engine.signals().ready
    assert engine.plc_triggered(False, None) is None


def test_part_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    config = line_config(tmp_path)
    for expected in ([1, 2], [3, 4]):
        engine = Engine(config, parts=2, cameras=[ScriptedCamera([PASS])], command=STAND_IN)
        rows = assert_whole(run_line(engine), engine, 2)
        assert [row["part_seq"] for row in rows] == expected


def test_screens_see_verdicts_previews_and_status_and_can_command(tmp_path: Path, no_leaks: None) -> None:
    config = line_config(tmp_path, trigger={"interval_ms": 20.0})
    engine = Engine(config, cameras=[ScriptedCamera([PASS, REJECT])], command=STAND_IN)
    engine.start(run=False)
    host, port = config.publishing.host, config.publishing.port
    client = CommandClient(host, port)
    with LineSubscriber(host, port) as line:
        received: list[VerdictMessage | StatusMessage | Preview] = []

        def receive_until(condition: object) -> None:
            give_up_s = time.monotonic() + 20
            while not condition() and time.monotonic() < give_up_s:  # type: ignore[operator]
                received.extend(line.receive(50))

        def states() -> list[EngineState]:
            return [message.state for message in received if isinstance(message, StatusMessage)]

        receive_until(lambda: EngineState.READY in states())
        client.send("start", user="anna")
        receive_until(lambda: sum(isinstance(message, Preview) for message in received) >= 2)
        receive_until(
            lambda: (
                {m.verdict for m in received if isinstance(m, VerdictMessage)}
                >= {Verdict.PASS, Verdict.REJECT}
            )
        )
        client.send("pause", reason="lunch", user="anna")
        receive_until(lambda: states()[-1] is EngineState.PAUSED)
        triggered = engine.ledger.snapshot().triggered
        with pytest.raises(CommandError, match="there is no alarm 'x'"):
            client.send("acknowledge", key="x")
        with pytest.raises(CommandError, match="unknown command 'dance'"):
            client.send("dance")
        with pytest.raises(CommandError, match="pause is not possible now"):
            client.send("pause")
        time.sleep(0.1)
        assert engine.ledger.snapshot().triggered <= triggered + 1, "a paused line triggers nothing"
        client.send("shutdown")
    assert engine.done.wait(5)
    client.close()
    account = engine.stop(engine.stop_reason)
    assert_whole(account, engine, account.triggered)
    rejects = [m for m in received if isinstance(m, VerdictMessage) and m.verdict is Verdict.REJECT]
    assert rejects[0].score == pytest.approx(1.5)
    assert rejects[0].regions == ((0.0, 0.0, 1.0, 1.0),)
    previews = [m for m in received if isinstance(m, Preview)]
    assert {len(preview.image_rgb) for preview in previews} == {16 * 8 * 3}
    assert {preview.map_u8[0] for preview in previews} <= {64, 192}
    with pytest.raises(CommandError, match="no answer"):
        quick = CommandClient(host, port, timeout_ms=100)
        try:
            quick.send("start")
        finally:
            quick.close()
    database = open_read_only(config.database_path)
    with database.connect() as connection:
        events = connection.exec_driver_sql("SELECT kind, title, user FROM event").all()
    database.close()
    assert ("stop", "line paused: lunch", "anna") in [tuple(event) for event in events]
