"""The whole line with a real Modbus TCP server as its PLC: in this process, and to be killed in another."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from line_runs import PASS, RECHECK, REJECT, assert_whole, wait_until
from scripted_line import ROOT, STAND_IN, ScriptedCamera, line_config

from drivers.ladder import LadderSettings
from drivers.outputs import SimulatedOutput
from drivers.plc import PLC_REGISTERS
from drivers.plc_simulator import PlcSimulator
from station.config import StationConfig
from station.engine import Engine
from station.types import EngineState

SHORT = {"heartbeat_ms": 600.0, "timeout_ms": 300.0, "acknowledge_ms": 400.0}
PATIENT = {
    "heartbeat_ms": 5000.0,
    "timeout_ms": 3000.0,
    "acknowledge_ms": 3000.0,
}  # a busy machine is no fault
STALLED = {"trigger missed"}  # parts come every 50 ms: a machine that stalls for longer misses one, rejected


@pytest.fixture
def plc() -> Iterator[PlcSimulator]:
    simulator = PlcSimulator(LadderSettings(interval_s=0.05, travel_s=1.5))
    simulator.start()
    yield simulator
    simulator.stop()


def plc_config(tmp_path: Path, port: int, **changes: dict[str, object]) -> StationConfig:
    trigger = {"source": "plc", "late_ms": 2000.0, "interval_ms": 50.0} | changes.pop("trigger", {})
    plc = {"driver": "modbus", "host": "127.0.0.1", "port": port} | SHORT | changes.pop("plc", {})
    return line_config(tmp_path, trigger=trigger, plc=plc, **changes)


@contextmanager
def running(
    config: StationConfig, script: list[object], gate: SimulatedOutput | None = None
) -> Iterator[Engine]:
    engine = Engine(config, cameras=[ScriptedCamera(script)], gate=gate, command=STAND_IN)  # type: ignore[arg-type]
    engine.start()
    try:
        wait_until(lambda: engine.state()[0] is EngineState.RUNNING)
        yield engine
    finally:
        engine.stop("test is over")


def settled(plc: PlcSimulator, engine: Engine) -> None:
    """No more triggers, everything at its lane."""
    plc.settings.interval_s = 0.0
    wait_until(lambda: plc.ladder.in_transit == 0 and engine.ledger.snapshot().in_flight == 0)


def passed(engine: Engine) -> int:
    return engine.ledger.snapshot().passed


def reasons(engine: Engine) -> set[object]:
    account = engine.ledger.snapshot()
    return {row["reason"] for row in assert_whole(account, engine, account.triggered)}


def test_the_plc_triggers_and_both_accounts_agree(plc: PlcSimulator, tmp_path: Path, no_leaks: None) -> None:
    plc.settings.travel_s, plc.settings.heartbeat_s = 3.0, 5.0
    with running(plc_config(tmp_path, plc.port, plc=PATIENT), [PASS, REJECT, RECHECK, PASS]) as engine:
        wait_until(lambda: engine.ledger.snapshot().triggered >= 12)
        settled(plc, engine)
        assert engine.state()[0] is EngineState.RUNNING
        counts = plc.ladder.counts
    account = engine.ledger.snapshot()
    rows = assert_whole(account, engine, counts.triggered)
    judged = {"below limit", "above recheck limit", "above reject limit"}
    assert judged <= {row["reason"] for row in rows} <= judged | STALLED
    assert counts.good_lane == account.passed >= 6
    assert counts.reject_lane == account.reject + account.recheck + account.not_inspected
    told = {1: account.passed, 2: account.recheck, 3: account.reject, 4: account.not_inspected}
    assert counts.verdicts == {code: parts for code, parts in told.items() if parts}
    assert (counts.confirmed, counts.unconfirmed) == (counts.triggered, 0)
    assert all((row["plc_part_id"] == row["part_seq"]) or row["reason"] in STALLED for row in rows)


def test_a_line_with_its_own_clock_tells_the_plc_every_verdict(plc: PlcSimulator, tmp_path: Path) -> None:
    gate = SimulatedOutput()
    plc.settings.interval_s = 0.0
    config = plc_config(
        tmp_path, plc.port, plc=PATIENT, trigger={"source": "software"}, outputs={"gate_acts_on": "pass"}
    )
    with running(config, [PASS, REJECT], gate) as engine:
        wait_until(lambda: engine.ledger.snapshot().rows >= 10)
    account = engine.ledger.snapshot()
    assert_whole(account, engine, account.triggered)
    assert gate.count == account.passed
    assert plc.ladder.counts.triggered == 0
    assert plc.ladder.counts.verdicts[1] == account.passed >= 5


def stop_program(plc: PlcSimulator) -> None:
    plc.running = False


def run_program(plc: PlcSimulator) -> None:
    plc.running = True


def hang(plc: PlcSimulator) -> None:
    plc.answering = False


def answer(plc: PlcSimulator) -> None:
    plc.answering = True


def write_garbage(plc: PlcSimulator) -> None:
    plc.garbage = [0xDEAD, *range(1, PLC_REGISTERS)]


def write_signals(plc: PlcSimulator) -> None:
    plc.garbage = None


def acknowledge_late(plc: PlcSimulator) -> None:
    plc.settings.acknowledge_s = 1.0


def acknowledge(plc: PlcSimulator) -> None:
    plc.settings.acknowledge_s = 0.0


@pytest.mark.parametrize(
    ("harm", "heal", "fault", "reason"),
    [
        (stop_program, run_program, "heartbeat stands still|not acknowledged", None),
        (hang, answer, "no usable answer", None),
        (write_garbage, write_signals, "holds 0xdead", None),
        (acknowledge_late, acknowledge, "not acknowledged within 400 ms", "PLC did not acknowledge"),
        (PlcSimulator.stop, PlcSimulator.start, "no usable answer|no connection", None),
    ],
    ids=["stopped", "hangs", "garbage", "late acknowledge", "restarted"],
)
def test_whatever_the_plc_does_nothing_passes_and_it_comes_back_by_itself(
    no_leaks: None, plc: PlcSimulator, tmp_path: Path, harm, heal, fault: str, reason: str | None
) -> None:
    with running(plc_config(tmp_path, plc.port), [PASS]) as engine:
        wait_until(lambda: passed(engine) >= 3)
        harm(plc)
        wait_until(lambda: engine.state()[0] is EngineState.FAULT)
        assert engine.state()[1] == "PLC not ready; parts are rejected"
        (alarm,) = [alarm for alarm in engine.health.snapshot().alarms if alarm.key == "device-plc"]
        assert any(text in alarm.title for text in fault.split("|"))
        time.sleep(0.3)
        before = passed(engine)
        time.sleep(0.2)
        assert passed(engine) == before, "nothing passes while the PLC is lost"
        assert engine.ledger.snapshot().balanced()
        heal(plc)
        wait_until(lambda: engine.state()[0] is EngineState.RUNNING)
        wait_until(lambda: passed(engine) >= before + 3)
        settled(plc, engine)
        assert plc.ladder.counts.good_lane <= passed(engine)
    told = reasons(engine)
    assert told <= {"below limit", "PLC lost", "PLC did not acknowledge"} | STALLED
    if reason:
        assert reason in told


def test_a_line_without_its_plc_starts_rejecting_and_runs_when_it_is_there(tmp_path: Path) -> None:
    late = PlcSimulator(LadderSettings(interval_s=0.05, travel_s=0.3))
    late.start()
    late.stop()  # its port is known now
    config = plc_config(tmp_path, late.port, trigger={"source": "software"})
    engine = Engine(config, cameras=[ScriptedCamera([PASS])], command=STAND_IN)
    engine.start()
    wait_until(lambda: engine.ledger.snapshot().rows >= 5)
    assert engine.state()[0] is EngineState.FAULT
    assert passed(engine) == 0
    late.settings.interval_s = 0.0
    late.start()
    wait_until(lambda: passed(engine) >= 5)
    engine.stop("done")
    late.stop()
    assert reasons(engine) == {"PLC lost", "below limit"}


def test_a_paused_line_is_not_ready_and_parts_that_come_all_the_same_are_counted(
    plc: PlcSimulator, tmp_path: Path
) -> None:
    with running(plc_config(tmp_path, plc.port, plc=PATIENT), [PASS]) as engine:
        wait_until(lambda: passed(engine) >= 2)
        assert engine.command("pause", {"reason": "jam"}) == {"ok": True}
        time.sleep(0.2)
        triggered = plc.ladder.counts.triggered
        time.sleep(0.2)
        assert plc.ladder.counts.triggered == triggered, "READY has dropped"
        assert engine.command("start", {}) == {"ok": True}
        wait_until(lambda: plc.ladder.counts.triggered >= triggered + 2)
        settled(plc, engine)
        counts = plc.ladder.counts
    assert counts.triggered == engine.ledger.snapshot().triggered
    assert reasons(engine) <= {"below limit", "line paused"} | STALLED


def test_a_lost_camera_drops_ready_and_comes_back(plc: PlcSimulator, tmp_path: Path) -> None:
    with running(
        plc_config(tmp_path, plc.port, plc=PATIENT), [PASS, PASS, "lost", PASS, PASS, PASS]
    ) as engine:
        wait_until(lambda: engine.acquisition.counts["reconnects"] >= 1)
        wait_until(lambda: passed(engine) >= 6)
        settled(plc, engine)
        counts = plc.ladder.counts
    assert counts.triggered == engine.ledger.snapshot().triggered
    assert counts.good_lane == passed(engine)
    assert reasons(engine) <= {"below limit", "camera lost"} | STALLED


def test_by_encoder_parts_are_sorted_at_their_count_of_the_belt(plc: PlcSimulator, tmp_path: Path) -> None:
    gate = SimulatedOutput()
    outputs = {"tracking": "encoder", "reject_counts": 500, "gate_acts_on": "pass", "stroke_ms": 5.0}
    with running(
        plc_config(tmp_path, plc.port, plc=PATIENT, outputs=outputs), [PASS, REJECT], gate
    ) as engine:
        wait_until(lambda: gate.count >= 5)
        settled(plc, engine)
        time.sleep(0.7)
        before = gate.count
        plc.settings.counts_per_s = 0.0  # the belt stands: parts are judged and stay where they are
        plc.settings.interval_s = 0.05
        wait_until(lambda: engine.ledger.snapshot().in_flight == 0 and passed(engine) >= before + 3)
        plc.settings.interval_s = 0.0
        assert gate.count == before
        plc.settings.counts_per_s = 1000.0
        wait_until(lambda: gate.count == passed(engine) and engine.ledger.snapshot().in_flight == 0)
    account = engine.ledger.snapshot()
    assert_whole(account, engine, account.triggered)
    assert gate.count == account.passed


def test_a_part_that_reaches_the_gate_before_its_verdict_is_not_inspected(
    plc: PlcSimulator, tmp_path: Path
) -> None:
    gate = SimulatedOutput()
    plc.settings.counts_per_s = 100_000.0
    outputs = {"tracking": "encoder", "reject_counts": 2000, "gate_acts_on": "pass"}
    slow = [(50, 30, 0)]  # 120 ms to think, 20 ms to the gate
    with running(plc_config(tmp_path, plc.port, plc=PATIENT, outputs=outputs), slow, gate) as engine:
        plc.settings.interval_s = 0.3
        wait_until(lambda: engine.ledger.snapshot().not_inspected >= 3)
        settled(plc, engine)
    assert gate.count == passed(engine) == plc.ladder.counts.good_lane == 0
    assert reasons(engine) == {"gate reached before verdict"}


def test_a_rejected_part_that_is_not_seen_leaving_holds_the_line(plc: PlcSimulator, tmp_path: Path) -> None:
    plc.settings.travel_s = 0.6
    plc.settings.sensor_s = 0.2
    outputs = {"reject_confirm_ms": 1000.0, "reject_delay_ms": 600.0, "gate_acts_on": "pass"}
    config = plc_config(tmp_path, plc.port, plc=PATIENT, inspection={"deadline_ms": 500.0}, outputs=outputs)
    with running(config, [PASS, REJECT]) as engine:
        wait_until(lambda: engine.sorting.actuation.rejected >= 4)
        assert engine.state()[0] is EngineState.RUNNING, "each was seen"
        plc.settings.sees_rejects = False
        wait_until(lambda: engine.state()[0] is EngineState.PAUSED)
        assert "rejected and not seen leaving" in engine.state()[1]
        assert "reject-confirm" in [alarm.key for alarm in engine.health.snapshot().alarms]
        plc.settings.sees_rejects = True
        wait_until(lambda: plc.ladder.in_transit == 0)
        time.sleep(1.2)
        assert engine.command("start", {"user": "anna"}) == {"ok": True}
        before = engine.sorting.actuation.rejected
        wait_until(lambda: engine.sorting.actuation.rejected >= before + 3)
        assert engine.state()[0] is EngineState.RUNNING
    account = engine.ledger.snapshot()
    assert_whole(account, engine, account.triggered)


@pytest.mark.parametrize(
    ("rule", "script", "why"),
    [
        (
            {"stop_consecutive_rejects": 3},
            [PASS, REJECT, PASS, RECHECK, REJECT, "failed"],
            "3 rejects in a row",
        ),
        (
            {"stop_rejects": 3, "stop_among": 5},
            [REJECT, PASS, REJECT, REJECT],
            "3 rejects among the last 5 parts",
        ),
    ],
)
def test_too_many_rejects_hold_the_line_until_somebody_starts_it(
    tmp_path: Path, rule: dict[str, object], script: list[object], why: str
) -> None:
    config = line_config(tmp_path, inspection=rule, trigger={"interval_ms": 30.0})
    with running(config, [PASS, PASS, *script]) as engine:
        wait_until(lambda: engine.state()[0] is EngineState.PAUSED)
        assert engine.state()[1] == why
        (alarm,) = [alarm for alarm in engine.health.snapshot().alarms if alarm.key == "reject-stop"]
        assert alarm.title == f"STOPPED: {why.upper()}"
        triggered = engine.ledger.snapshot().triggered
        assert engine.command("start", {"user": "anna"}) == {"ok": True}
        wait_until(lambda: engine.ledger.snapshot().triggered >= triggered + 3)
        assert "reject-stop" not in [a.key for a in engine.health.snapshot().alarms if a.active]
    account = engine.ledger.snapshot()
    assert_whole(account, engine, account.triggered)


def start_plc_process(port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "station.cli", "plc-sim", "--port", str(port), "--interval-ms", "50"]
    process = subprocess.Popen([*command, "--travel-ms", "500"], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("plc: {driver: modbus")
    return process


def test_a_plc_that_is_frozen_then_killed_then_started_again(tmp_path: Path, no_leaks: None) -> None:
    probe = PlcSimulator(LadderSettings())
    probe.start()
    probe.stop()
    process = start_plc_process(probe.port)
    with running(plc_config(tmp_path, probe.port), [PASS]) as engine:
        wait_until(lambda: passed(engine) >= 3)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: engine.state()[0] is EngineState.FAULT)
        process.send_signal(signal.SIGCONT)
        before = passed(engine)
        wait_until(lambda: passed(engine) >= before + 3)
        process.kill()
        process.communicate()
        wait_until(lambda: engine.state()[0] is EngineState.FAULT)
        process = start_plc_process(probe.port)
        before = passed(engine)
        wait_until(lambda: passed(engine) >= before + 3)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "triggered" in said.splitlines()[-1]
    account = engine.ledger.snapshot()
    assert_whole(account, engine, account.triggered)
