"""How soon the demo line inspects again: worker killed or hung, camera or PLC gone and back, model changed.

A real line with the model that ships at its usual pace, its faults real: SIGKILL, SIGSTOP, a camera that is
unplugged, a PLC that ends and is started again. Times in seconds:

    noticed   fault to READY off
    ready     fault to READY on; for camera and PLC from the moment they can be reached again
    verdict   the same, to the next part that is inspected
"""

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.reporting import print_table
from drivers.camera import Camera
from drivers.config import SimulatedConfig
from drivers.errors import CameraNotFound
from drivers.ladder import LadderSettings
from drivers.plc_simulator import READ_ADDRESS, WRITE_ADDRESS, PlcSimulator
from drivers.simulated import SimulatedCamera, SimulatedFaults
from drivers.types import CameraInfo
from station.config import StationConfig, load_config
from station.engine import Engine

ROOT = Path(__file__).resolve().parents[1]
GIVE_UP_S = 120.0
PORT = 27_900  # below the ports that outgoing connections are given
ABSENT_OPENS = 5  # gone for some eight seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=5, help="of each fault (default: 5)")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), help="default: all")


@dataclass(frozen=True)
class Trial:
    """One recovery, in seconds; and the parts that were not inspected meanwhile."""

    noticed_s: float | None
    ready_s: float
    verdict_s: float
    not_inspected: int


class Plug(set[int]):
    """The camera's cable: out at the next trigger once `pulled`."""

    pulled = False

    def __contains__(self, part_index: object) -> bool:
        pulled, self.pulled = self.pulled, False
        return pulled


class BenchCamera(SimulatedCamera):
    """Remembers when it was last looked for in vain: from then on it is there."""

    def __init__(self, config: SimulatedConfig) -> None:
        self.plug = Plug()
        super().__init__(config, SimulatedFaults(disappear=self.plug, absent_opens=ABSENT_OPENS))
        self.missed_s = 0.0

    def open(self) -> CameraInfo:
        try:
            return super().open()
        except CameraNotFound:
            self.missed_s = time.monotonic()
            raise


def run(args: argparse.Namespace) -> dict[str, Any]:
    trials: dict[str, list[Trial]] = {}
    for fault in args.faults:
        with tempfile.TemporaryDirectory() as folder, FAULTS[fault](Path(folder)) as once:
            trials[fault] = [once() for _ in range(args.trials)]
        print(f"{fault}: done", flush=True)
    header = [
        "fault",
        "noticed",
        "ready median",
        "ready max",
        "verdict median",
        "verdict max",
        "not inspected",
    ]
    print_table(header, [[fault, *_row(found)] for fault, found in trials.items()])
    return {fault: [vars(trial) for trial in found] for fault, found in trials.items()}


def _row(trials: list[Trial]) -> list[str]:
    noticed = [trial.noticed_s for trial in trials if trial.noticed_s is not None]
    ready, verdict = [trial.ready_s for trial in trials], [trial.verdict_s for trial in trials]
    times = (median(ready), max(ready), median(verdict), max(verdict))
    lost = median(trial.not_inspected for trial in trials)
    return [f"{median(noticed):.2f}" if noticed else "-", *(f"{value:.2f}" for value in times), f"{lost:g}"]


# --- a line


def _config(folder: Path, **changes: dict[str, Any]) -> StationConfig:
    values = load_config(ROOT / "config.yaml").model_dump()
    values["station"]["data_dir"] = folder
    values["metrics"]["port"] = 0
    values["publishing"]["port"] = PORT
    return StationConfig.model_validate(values | changes)


@contextmanager
def _running(config: StationConfig, camera: Camera | None = None) -> Iterator[Engine]:
    engine = Engine(config, cameras=[camera] if camera else None)
    engine.start()
    try:
        _until(lambda: engine.signals().ready and _inspected(engine) > 0)
        yield engine
    finally:
        account = engine.stop("done")
    if engine.fault or not account.balanced() or account.rows != account.triggered:
        raise SystemExit(f"recovery: the line failed: {engine.fault or account}")


def _inspected(engine: Engine) -> int:
    account = engine.ledger.snapshot()
    return account.passed + account.recheck + account.reject


def _until(condition: Callable[[], bool]) -> float:
    """Wait for it; when it came true."""
    give_up_s = time.monotonic() + GIVE_UP_S
    while not condition():
        if time.monotonic() > give_up_s:
            raise SystemExit(f"recovery: no recovery within {GIVE_UP_S:g} s")
        time.sleep(0.002)
    return time.monotonic()


def _trial(engine: Engine, harm: Callable[[], None], back_s: Callable[[], float] | None = None) -> Trial:
    """Do harm, wait for READY to fall and to rise; `back_s` makes or knows the moment to count from."""
    before = engine.ledger.snapshot().not_inspected
    begun_s = time.monotonic()
    harm()
    noticed_s = _until(lambda: not engine.signals().ready)
    from_s = back_s() if back_s else begun_s
    ready_s = _until(lambda: engine.signals().ready)
    inspected = _inspected(engine)
    verdict_s = _until(lambda: _inspected(engine) > inspected)
    lost = engine.ledger.snapshot().not_inspected - before
    return Trial(noticed_s - begun_s, ready_s - from_s, verdict_s - from_s, lost)


# --- the faults: each starts a line and yields what does its trial once


@contextmanager
def _worker(number: signal.Signals, folder: Path) -> Iterator[Callable[[], Trial]]:
    def harm() -> None:
        assert engine.worker_pid is not None
        os.kill(engine.worker_pid, number)

    with _running(_config(folder)) as engine:
        yield lambda: _trial(engine, harm)


@contextmanager
def _camera(folder: Path) -> Iterator[Callable[[], Trial]]:
    config = _config(folder)
    assert isinstance(config.cameras[0], SimulatedConfig)
    camera = BenchCamera(config.cameras[0])

    def pull() -> None:
        camera.missed_s = 0.0
        camera.plug.pulled = True

    def last_missed_s() -> float:
        opens = engine.acquisition.counts["reconnects"]
        _until(lambda: engine.acquisition.counts["reconnects"] > opens or engine.signals().ready)
        return camera.missed_s

    with _running(config, camera) as engine:
        yield lambda: _trial(engine, pull, last_missed_s)


@contextmanager
def _plc(folder: Path) -> Iterator[Callable[[], Trial]]:
    plc = PlcSimulator(LadderSettings(interval_s=0.25, travel_s=1.5))

    def start() -> float:
        plc.start()
        return time.monotonic()

    with plc:
        modbus = {"driver": "modbus", "host": "127.0.0.1", "port": plc.port}
        addresses = {"read_address": READ_ADDRESS, "write_address": WRITE_ADDRESS}
        changes: dict[str, Any] = {"plc": modbus | addresses, "outputs": {"reject_gate": {"driver": "none"}}}
        trigger = {"source": "plc"}
        with _running(_config(folder, trigger=trigger, **changes)) as engine:
            yield lambda: _trial(engine, plc.stop, start)


@contextmanager
def _swap(folder: Path) -> Iterator[Callable[[], Trial]]:
    def change() -> Trial:
        before = engine.ledger.snapshot().not_inspected
        begun_s, pid = time.monotonic(), engine.worker_pid
        engine.command("model", {"bundle": str(config.model.bundle)})
        ready_s = _until(lambda: engine.worker_pid != pid)
        inspected = _inspected(engine)
        verdict_s = _until(lambda: _inspected(engine) > inspected)
        _until(lambda: not engine.command("model", {})["loading"])
        lost = engine.ledger.snapshot().not_inspected - before
        return Trial(None, ready_s - begun_s, verdict_s - begun_s, lost)

    config = _config(folder)
    with _running(config) as engine:
        yield change


FAULTS: dict[str, Any] = {
    "worker-killed": lambda folder: _worker(signal.SIGKILL, folder),
    "worker-hangs": lambda folder: _worker(signal.SIGSTOP, folder),
    "camera-back": _camera,
    "plc-back": _plc,
    "model-changed": _swap,
}
