"""The whole line on a scripted camera, with the real worker process around a stand-in detector."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zmq
from conftest import STAND_IN, ScriptedCamera, line_config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standin import FAULTS

from db.archive import Archive
from db.session import open_read_only
from drivers.errors import CameraLost, CameraNotFound, OutputError
from drivers.outputs import SimulatedGate
from drivers.types import CameraInfo, Grab
from station.client import CommandClient, CommandError, LineSubscriber
from station.config import StationConfig
from station.engine import Engine, StartError
from station.run_figures import read_run
from station.types import EngineState, LedgerSnapshot, Preview, StatusMessage, Verdict, VerdictMessage

PASS, RECHECK, REJECT = (50, 0, 0), (95, 0, 0), (150, 0, 0)


def run_line(engine: Engine, timeout_s: float = 60) -> LedgerSnapshot:
    engine.start()
    finished = engine.done.wait(timeout_s)
    account = engine.stop(engine.stop_reason or "test timed out")
    assert finished, "the line did not finish its parts"
    return account


def assert_whole(account: LedgerSnapshot, engine: Engine, parts: int) -> list[dict[str, object]]:
    rows = [dict(row) for row in read_run(engine.config.database_path, engine.run_id)]
    assert account.balanced()
    assert account.triggered == parts == account.rows == len(rows)
    assert account.in_flight == 0
    counts = (account.passed, account.recheck, account.reject, account.not_inspected)
    for verdict, counted in zip(Verdict, counts, strict=True):
        assert sum(row["verdict"] == verdict for row in rows) == counted
    return rows


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
    gate = SimulatedGate()
    engine = Engine(config, parts=len(script), camera=ScriptedCamera(script), gate=gate, command=STAND_IN)
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
    assert len(gate.fired_ns) == len(script) - 1
    assert engine.fault == ""
    assert [row["part_seq"] for row in rows] == list(range(1, len(script) + 1))


def test_rejects_keep_their_picture_and_map_lossless(tmp_path: Path) -> None:
    config = line_config(tmp_path, record={"pass_image_every": 2})
    engine = Engine(config, parts=4, camera=ScriptedCamera([PASS, REJECT]), command=STAND_IN)
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
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
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
    gate = SimulatedGate()
    engine = Engine(config, parts=len(script), camera=ScriptedCamera(script), gate=gate, command=STAND_IN)
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
    assert len(gate.fired_ns) == account.triggered - account.passed
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
        line_config(tmp_path, **changes), parts=100, camera=ScriptedCamera(slow), command=STAND_IN
    )
    account = run_line(engine)
    assert_whole(account, engine, 100)
    assert account.passed >= 25
    assert account.not_inspected >= 25


def test_a_killed_worker_is_replaced_and_its_parts_rejected(tmp_path: Path, no_leaks: None) -> None:
    config = line_config(tmp_path, trigger={"interval_ms": 20.0})
    camera = ScriptedCamera([PASS] * 5 + [(50, 0, FAULTS["kill"])] + [PASS] * 200)
    engine = Engine(config, parts=150, camera=camera, command=STAND_IN)
    rows = assert_whole(run_line(engine), engine, 150)
    assert (rows[5]["verdict"], rows[5]["reason"]) == ("NOT_INSPECTED", "worker down")
    assert rows[-1]["verdict"] == "PASS", "the next worker inspects"


def test_a_broken_detector_is_replaced(tmp_path: Path) -> None:
    camera = ScriptedCamera([PASS, (50, 0, FAULTS["broken"])] + [PASS] * 200)
    engine = Engine(
        line_config(tmp_path, trigger={"interval_ms": 20.0}), parts=150, camera=camera, command=STAND_IN
    )
    rows = assert_whole(run_line(engine), engine, 150)
    assert (rows[1]["verdict"], rows[1]["reason"]) == ("NOT_INSPECTED", "worker error")
    assert rows[-1]["verdict"] == "PASS"


class LineTriggered(ScriptedCamera):
    """A light barrier triggers it: buffers come by themselves, whether or not anybody takes them."""

    def __init__(self, frame_ids: list[int], period_s: float) -> None:
        super().__init__([PASS])
        self.frame_ids = frame_ids
        self.period_s = period_s

    def retrieve(self, timeout_s: float) -> Grab | None:
        if not self.frame_ids:
            return super().retrieve(timeout_s)
        time.sleep(self.period_s)
        image_rgb = np.zeros((*self.size, 3), np.uint8)
        image_rgb[0, 0] = PASS
        return Grab(self.frame_ids.pop(0), image_rgb, time.perf_counter_ns())


def line_triggered(config: StationConfig) -> StationConfig:
    """The same, with the camera's input line as its trigger."""
    return config.model_copy(update={"trigger": config.trigger.model_copy(update={"source": "camera"})})


def test_a_lost_buffer_of_a_line_trigger_is_a_part_that_was_not_inspected(
    tmp_path: Path, no_leaks: None
) -> None:
    camera = LineTriggered([], 0.02)
    gate = SimulatedGate()
    engine = Engine(
        line_triggered(line_config(tmp_path)), parts=6, camera=camera, gate=gate, command=STAND_IN
    )
    engine.start()
    camera.frame_ids = [0, 1, 4, 5]  # two were lost
    assert engine.done.wait(30)
    rows = assert_whole(engine.stop(""), engine, 6)
    assert [row["verdict"] for row in rows] == [
        "PASS",
        "PASS",
        "NOT_INSPECTED",
        "NOT_INSPECTED",
        "PASS",
        "PASS",
    ]
    assert {row["reason"] for row in rows} == {"below limit", "frame missing"}
    assert gate.count == 2
    assert engine.acquisition.counts["lost"] == 2
    assert "2 lost" in engine.status().devices[-2].text + engine.status().devices[-1].text


def test_parts_that_go_by_while_paused_are_counted_and_none_is_taken_for_a_later_one(tmp_path: Path) -> None:
    camera = LineTriggered([], 0.01)
    engine = Engine(line_triggered(line_config(tmp_path)), camera=camera, command=STAND_IN)
    engine.start(run=False)
    camera.frame_ids = list(range(5))  # before the line is ready: nobody's parts
    wait_until(lambda: not camera.frame_ids)
    assert engine.ledger.snapshot().triggered == 0
    assert engine.command("start", {}) == {"ok": True}
    camera.frame_ids = list(range(5, 10))
    wait_until(lambda: engine.ledger.snapshot().rows == 5)
    assert engine.command("pause", {"reason": "jam"}) == {"ok": True}
    camera.frame_ids = list(range(10, 14))
    wait_until(lambda: engine.ledger.snapshot().rows == 9)
    rows = assert_whole(engine.stop("done"), engine, 9)
    assert [row["verdict"] for row in rows] == ["PASS"] * 5 + ["NOT_INSPECTED"] * 4
    assert {row["reason"] for row in rows[5:]} == {"line paused"}


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def test_a_gate_that_does_not_move_holds_the_line(tmp_path: Path, no_leaks: None) -> None:
    class Stuck(SimulatedGate):
        def fire(self) -> None:
            raise OutputError("no answer; check its supply")

    config = line_config(tmp_path, trigger={"interval_ms": 20.0})
    engine = Engine(config, camera=ScriptedCamera([REJECT]), gate=Stuck(), command=STAND_IN)
    engine.start()
    wait_until(lambda: engine.state()[0] is EngineState.PAUSED)
    assert engine.state()[1] == "reject gate: no answer; check its supply"
    assert "device-gate" in [alarm.key for alarm in engine.health.snapshot().alarms]
    account = engine.stop("done")
    assert_whole(account, engine, account.triggered)


def test_no_command_can_harm_the_line(tmp_path: Path, no_leaks: None) -> None:
    config = line_config(tmp_path)
    engine = Engine(config, camera=ScriptedCamera([PASS]), command=STAND_IN)
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


def test_a_stopped_worker_is_replaced(tmp_path: Path) -> None:
    config = line_config(
        tmp_path, trigger={"interval_ms": 20.0}, inspection={"hang_ms": 200.0, "deadline_ms": 100.0}
    )
    engine = Engine(config, parts=150, camera=ScriptedCamera([PASS]), command=STAND_IN)
    engine.start()
    first = engine.worker_pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    assert engine.done.wait(60)
    second = engine.worker_pid
    account = engine.stop("done")
    rows = assert_whole(account, engine, 150)
    assert second != first
    assert not Path(f"/proc/{first}").exists()
    assert rows[-1]["verdict"] == "PASS"
    assert account.not_inspected > 0


def test_a_worker_that_keeps_dying_is_a_fault(tmp_path: Path, no_leaks: None) -> None:
    config = line_config(tmp_path, trigger={"interval_ms": 10.0}, inspection={"max_restarts_per_hour": 2})
    engine = Engine(config, camera=ScriptedCamera([(50, 0, FAULTS["crash"])]), command=STAND_IN)
    account = run_line(engine)
    assert_whole(account, engine, account.triggered)
    assert account.passed == 0
    assert "worker lost 3 times within an hour; last: worker exited with status 3" in engine.fault
    assert engine.state()[0] is EngineState.FAULT


class Unplugged(ScriptedCamera):
    """Goes at its third part, and is back at the third attempt to open it."""

    opens = 0

    def open(self) -> CameraInfo:
        self.opens += 1
        if self.opens in (2, 3):
            raise CameraNotFound("CAM 1: not there")
        return super().open()

    def trigger(self) -> None:
        if self.index == 2 and self.opens == 1:
            self.index += 1
            raise CameraLost("CAM 1: unplugged")
        super().trigger()


def test_a_lost_camera_rejects_its_part_alarms_and_comes_back(tmp_path: Path, no_leaks: None) -> None:
    engine = Engine(line_config(tmp_path), parts=6, camera=Unplugged([PASS]), command=STAND_IN)
    rows = assert_whole(run_line(engine), engine, 6)
    assert [row["verdict"] for row in rows] == ["PASS", "PASS", "NOT_INSPECTED", "PASS", "PASS", "PASS"]
    assert rows[2]["reason"] == "camera lost"
    assert engine.acquisition.counts["reconnects"] == 1
    assert [alarm.key for alarm in engine.health.snapshot().alarms] == ["device-camera"]


@pytest.mark.parametrize("what", ["model", "camera", "record", "ports"])
def test_a_line_that_cannot_start_says_why_and_leaves_nothing(
    tmp_path: Path, no_leaks: None, what: str
) -> None:
    config = line_config(tmp_path / "data")
    camera: ScriptedCamera = ScriptedCamera([PASS])
    command = STAND_IN
    other: Engine | None = None
    if what == "model":
        command = [*STAND_IN, "--cannot-load"]
        expected = "signed by nobody we trust"
    elif what == "camera":
        camera = Unplugged([PASS])
        camera.opens = 1  # type: ignore[attr-defined]
        expected = "CAM 1: not there"
    elif what == "record":
        (tmp_path / "data").mkdir()
        config.database_path.write_bytes(b"this is no database" * 100)
        expected = "station.db"
    else:
        same_port = line_config(tmp_path / "other", publishing={"port": config.publishing.port})
        other = Engine(same_port, camera=ScriptedCamera([PASS]), command=STAND_IN)
        other.start(run=False)
        expected = "cannot be used"
    with pytest.raises(StartError, match=expected) as caught:
        Engine(config, camera=camera, command=command).start()
    assert "\n" not in str(caught.value)
    assert not camera.is_open
    if other:
        other.stop("done")


def test_part_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    config = line_config(tmp_path)
    for expected in ([1, 2], [3, 4]):
        engine = Engine(config, parts=2, camera=ScriptedCamera([PASS]), command=STAND_IN)
        rows = assert_whole(run_line(engine), engine, 2)
        assert [row["part_seq"] for row in rows] == expected


def test_screens_see_verdicts_previews_and_status_and_can_command(tmp_path: Path, no_leaks: None) -> None:
    config = line_config(tmp_path, trigger={"interval_ms": 20.0})
    engine = Engine(config, camera=ScriptedCamera([PASS, REJECT]), command=STAND_IN)
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
