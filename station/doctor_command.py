"""`station doctor`: is everything here that this line needs? Looks, touches nothing, and says what to do."""

import argparse
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from station import line_commands
from station.ballast import BALLAST, ROOM

if TYPE_CHECKING:
    from station.config import StationConfig

_MIN_FREE_BYTES = 2 * 1024**3
Finding = tuple[str, str]  # (ok | warn | fail, text)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "doctor", help="check configuration, disk, camera, PLC, model, screen; change nothing"
    )
    line_commands.add_config_argument(parser)
    parser.set_defaults(func=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from station.config import load_config

    config = load_config(arguments.config)
    print(f"ok    config     {arguments.config}")
    worst = 0
    for name, (state, text) in findings(config):
        print(f"{state:5} {name:10} {text}", flush=True)
        worst = max(worst, ("ok", "warn", "fail").index(state))
    return 1 if worst == 2 else 0


def findings(config: "StationConfig", *, beside_line: bool = False) -> Iterator[tuple[str, Finding]]:
    """What is found, check by check.

    Args:
        config: of the line.
        beside_line: leave out what a running line has for itself: model, camera and PLC.
    """
    checks: tuple[tuple[str, Callable[[StationConfig], Finding]], ...] = (
        ("disk", _disk),
        ("record", _record),
        ("backup", _backup),
        ("ports", _ports),
        ("metrics", _metrics),
        ("keys", _keys),
        ("line", _line),
        ("model", _models),
        ("camera", _cameras),
        ("plc", _plc),
        ("screen", _screen),
        ("clock", _clock),
    )
    runs = beside_line and _seems_to_run(config)
    for name, check in checks:
        if runs and name in ("model", "camera", "plc"):
            yield name, ("ok", "not looked at: the line seems to be running")
        else:
            yield name, _safely(check, config)


def _safely(check: Callable[["StationConfig"], Finding], config: "StationConfig") -> Finding:
    try:
        return check(config)
    except Exception as error:  # noqa: BLE001 - a check that breaks has found something, too
        return "fail", f"{type(error).__name__}: {' '.join(str(error).split())}"


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _disk(config: "StationConfig") -> Finding:
    folder = _existing(config.station.data_dir)
    if not os.access(folder, os.W_OK):
        return "fail", f"{folder} cannot be written; give this user write access or change station.data_dir"
    free = shutil.disk_usage(folder).free
    needed_mb = ROOM * config.record.ballast_mb
    if free < needed_mb * 1e6 and not config.database_path.with_name(BALLAST).exists():
        return (
            "fail",
            f"{free / 1e6:.0f} MB free at {folder}, {needed_mb:g} needed to keep pictures; free some",
        )
    text = f"{free / 1024**3:.1f} GiB free at {folder}"
    return ("ok", text) if free >= _MIN_FREE_BYTES else ("warn", f"{text}; free some before a shift")


def _record(config: "StationConfig") -> Finding:
    from sqlalchemy import func, select

    from db.chain import read_faults
    from db.errors import RecordError, RecordMissing, record_errors
    from db.models import Part, Run
    from db.session import open_read_only

    try:
        database = open_read_only(config.database_path)
    except RecordMissing:
        return "ok", f"{config.database_path} will be created at the first start"
    except RecordError as error:
        return "fail", str(error)
    try:
        with record_errors(database.path), database.connect() as connection:
            parts = connection.execute(select(func.count()).select_from(Part)).scalar_one()
            last_run = select(Run.station).order_by(Run.started_unix_ns.desc()).limit(1)
            station = connection.execute(last_run).scalar_one_or_none()
            problems = [problem for problem in (database.loss, *read_faults(connection)) if problem]
    except RecordError as error:
        return "fail", str(error)
    finally:
        database.close()
    if problems:
        return "fail", f"{problems[0]}; keep the disk and compare with a backup"
    if station not in (None, config.station.name):
        other = f"{station!r}, and this is {config.station.name!r}: its reports would count those, too"
        return "warn", f"{config.database_path} holds {parts} parts of {other}; change station.data_dir"
    return "ok", f"{parts} parts recorded, nothing altered"


def _backup(config: "StationConfig") -> Finding:
    from db.backup import backup_unix_s, backups

    every_hours, folder = config.housekeeping.backup_hours, config.backup_folder
    if not every_hours:
        return "warn", "none configured: housekeeping.backup_hours is 0"
    if not config.database_path.exists():
        return "ok", f"nothing recorded yet; backups will go to {folder}"
    made = backups(folder)
    if not made:
        return "warn", f"none yet in {folder}; the line makes one within minutes of its start"
    age_hours = (time.time() - backup_unix_s(made[-1])) / 3600
    text = f"{made[-1]}, {age_hours:.1f} h old"
    return ("ok", text) if age_hours < 2 * every_hours else ("warn", f"{text}; is the line running at all?")


def _ports(config: "StationConfig") -> Finding:
    host, first = config.publishing.host, config.publishing.port
    for port in range(first, first + 3):
        if problem := _unusable(host, port):
            return "warn", f"{problem}; is this line running already?"
    return "ok", f"{host}:{first} to {first + 2} are free"


def _seems_to_run(config: "StationConfig") -> bool:
    return _ports(config)[0] != "ok"


def _metrics(config: "StationConfig") -> Finding:
    host, port = config.metrics.host, config.metrics.port
    if not port:
        return "ok", "none configured"
    if (problem := _unusable(host, port)) and not _seems_to_run(config):
        return "warn", f"{problem}; change metrics.port, another program has it"
    return "ok", f"{host}:{port}"


def _unusable(host: str, port: int) -> str:
    """Why a port cannot be listened on; empty where it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return f"{host}:{port}: {error.strerror}"
    return ""


def _all_of(found: Iterable[tuple[str, Finding]]) -> Finding:
    """One finding for several of a kind, each by its name: that of the first that is not well, else all."""
    every = list(found)
    for name, (state, text) in every:
        if state != "ok":
            return state, f"{name}: {text}" if len(every) > 1 else text
    return "ok", "; ".join(text for _, (_, text) in every)


def _models(config: "StationConfig") -> Finding:
    cameras = {config.bundle_of(camera.camera_id): camera.camera_id for camera in reversed(config.cameras)}
    return _all_of((camera_id, _model(config, camera_id)) for camera_id in reversed(cameras.values()))


def _keys(config: "StationConfig") -> Finding:
    from station.wire_keys import KeysError, read_line_keys, read_screen_keys, readable_by_others

    folder = config.publishing.keys
    if folder is None:
        return "ok", f"none configured: only this machine reaches {config.publishing.host}"
    try:
        read_line_keys(folder)
        read_screen_keys(folder)
    except KeysError as error:
        return "fail", str(error)
    if exposed := readable_by_others(folder):
        return "fail", f"{exposed[0]} can be read by others; chmod 600, or make new keys if they have"
    screens = sorted(path.stem for path in read_line_keys(folder).screens.glob("*.public"))
    return "ok", f"{folder}: lets in {', '.join(screens) or 'nobody'}"


def _line(config: "StationConfig") -> Finding:
    from sqlalchemy import select

    from db.errors import RecordMissing
    from db.models import Run
    from db.session import open_read_only
    from station.config import config_sha256

    if not _seems_to_run(config):
        return "ok", "does not run"
    another = "warn", "does not run, and yet its ports are taken: by another line? change publishing.port"
    try:
        database = open_read_only(config.database_path)
    except RecordMissing:
        return another
    try:
        with database.connect() as connection:
            last_run = select(Run.config_sha256, Run.stopped_unix_ns).order_by(Run.started_unix_ns.desc())
            last = connection.execute(last_run.limit(1)).one_or_none()
    finally:
        database.close()
    if last is None or last.stopped_unix_ns is not None:
        return another
    if last.config_sha256 == config_sha256(config):
        return "ok", "runs with this configuration"
    return "warn", "runs with another configuration than this file's, which counts from the next start"


def _model(config: "StationConfig", camera_id: str) -> Finding:
    import numpy as np

    from station.model_check import require_finite_score, require_finite_weights
    from varad_core.inspector import Inspector
    from varad_core.types import VaradError

    try:
        inspector = Inspector.load(
            config.bundle_of(camera_id),
            trusted_keys=config.trusted_keys,
            device=config.model.device,
            threads=config.model.threads,
        )
        require_finite_weights(inspector)
        inspector.warm_up()
        require_finite_score(inspector)
    except VaradError as error:
        return "fail", str(error)
    image_rgb = np.full((512, 512, 3), 128, np.uint8)
    times_ms = []
    for _ in range(5):
        started_ns = time.perf_counter_ns()
        inspector.inspect(image_rgb)
        times_ms.append((time.perf_counter_ns() - started_ns) / 1e6)
    takt_ms = config.line.takt_ms
    if config.trigger.source == "software":
        takt_ms = min(takt_ms, config.trigger.interval_ms)
    text = (
        f"{inspector.model_name} {inspector.model_id}, {min(times_ms):.0f} ms an image, takt {takt_ms:g} ms"
    )
    return ("ok", text) if min(times_ms) < takt_ms else ("fail", f"{text}: too slow for this line")


def _cameras(config: "StationConfig") -> Finding:
    return _all_of((camera.camera_id, _camera(config, index)) for index, camera in enumerate(config.cameras))


def _camera(config: "StationConfig", index: int) -> Finding:
    from drivers.camera import create_camera
    from drivers.errors import DriverError

    camera = create_camera(config.cameras[index])
    try:
        info = camera.open()
        text = f"{info.model} {info.serial}, {info.width_px} x {info.height_px} px"
        if index == 0 and config.trigger.source == "camera":
            return "ok", f"{text}; waits for its input line"
        camera.trigger()
        grab = camera.retrieve(config.trigger.frame_timeout_ms / 1e3)
    except DriverError as error:
        return "fail", str(error)
    finally:
        camera.close()
    if grab is None or grab.image_rgb is None:
        return "fail", f"{text}; no image: {grab.error if grab else 'none came in time'}"
    height, width = grab.image_rgb.shape[:2]
    grey = (grab.image_rgb == grab.image_rgb[..., :1]).all()
    return "ok", f"{text}; sent a {'grey' if grey else 'colour'} picture of {width} x {height} px"


def _plc(config: "StationConfig") -> Finding:
    from drivers.errors import PlcError
    from drivers.plc import create_plc

    plc = create_plc(config.plc)
    if plc is None:
        return "ok", "none configured"
    try:
        before = plc.read()
        time.sleep(0.5)
        after = plc.read()
    except PlcError as error:
        return "fail", str(error)
    finally:
        plc.close()
    if after.heartbeat == before.heartbeat:
        return "fail", "the registers are there, but the heartbeat stands still: put the PLC in RUN"
    return "ok", f"session {after.session}, heartbeat runs, encoder {after.encoder}"


def _screen(config: "StationConfig") -> Finding:
    if line_commands.has_display():
        return "ok", f"display {os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')}"
    return "warn", "no display here; the line runs without a screen, or open `station ui` where there is one"


def _clock(config: "StationConfig") -> Finding:
    if time.time() < Path(sys.executable).stat().st_ctime - 86_400:
        return "fail", "the clock is before this program's installation; set it before recording"
    return "ok", time.strftime("%Y-%m-%d %H:%M:%S %Z")
