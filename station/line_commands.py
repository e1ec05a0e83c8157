"""`station run`, `station serve`, `station ui`: the line with its screen, without it, and the screen
alone."""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from station.logs import logging_to

if TYPE_CHECKING:
    from station.config import StationConfig
    from station.engine import Engine

log = logging.getLogger(__name__)

_UI_CRASHES_PER_MINUTE = 5


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the three commands."""
    run = subparsers.add_parser("run", help="run a line with its screen")
    add_config_argument(run)
    screen = run.add_mutually_exclusive_group()
    screen.add_argument("--headless", action="store_true", help="no screen")
    screen.add_argument("--kiosk", action="store_true", help="full screen, without a frame")
    run.add_argument("--parts", type=positive_int, metavar="N", help="stop after N parts")
    run.add_argument("--json", action="store_true", help="print the run's figures as JSON on the last line")
    run.set_defaults(func=_run)

    serve = subparsers.add_parser("serve", help="run a line without a screen, until SIGTERM")
    add_config_argument(serve)
    serve.set_defaults(func=_serve)

    ui = subparsers.add_parser("ui", help="open the screen of a line that is running")
    add_config_argument(ui)
    ui.add_argument("--kiosk", action="store_true", help="full screen, without a frame")
    ui.add_argument(
        "--connect", metavar="HOST[:PORT]", help="the line's machine, instead of the configured one"
    )
    ui.add_argument("--keys", type=Path, metavar="FOLDER", help="this screen's keys, from `station keys`")
    ui.set_defaults(func=_ui)


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """`--config FILE`, as all commands of a line take it."""
    parser.add_argument(
        "--config", type=Path, default=Path("config.yaml"), metavar="FILE", help="the line's configuration"
    )


def positive_int(text: str) -> int:
    """A whole number above 0, for argparse."""
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number (got {text!r})") from error
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1 (got {value})")
    return value


def _run(arguments: argparse.Namespace) -> int:
    from station.config import load_config

    config = load_config(arguments.config)
    if not arguments.headless and not has_display():
        print(
            "station: no display found (DISPLAY, WAYLAND_DISPLAY); running without a screen", file=sys.stderr
        )
        arguments.headless = True
    with running_engine(config, arguments.parts) as engine:
        if arguments.headless:
            wait(engine)
        else:
            wait_with_screen(engine, arguments.config, kiosk=arguments.kiosk)
    return finish(engine, arguments.json, {})


def _serve(arguments: argparse.Namespace) -> int:
    from station.config import load_config

    with running_engine(load_config(arguments.config), None) as engine:
        wait(engine)
    return finish(engine, False, {})


def _ui(arguments: argparse.Namespace) -> int:
    from station.config import load_config
    from station.screen_address import screen_address
    from station.yaml_source import ConfigError

    # A mistake is told here, not in a window that closes again.
    screen_address(load_config(arguments.config), arguments.connect, arguments.keys)
    if not has_display() and "QT_QPA_PLATFORM" not in os.environ:
        raise ConfigError("no display here (DISPLAY, WAYLAND_DISPLAY); open the screen where there is one")
    command = screen_command(arguments.config, kiosk=arguments.kiosk)
    command += ["--connect", arguments.connect] if arguments.connect else []
    command += ["--keys", str(arguments.keys)] if arguments.keys else []
    os.execv(command[0], command)  # this process becomes the screen, and its signals are the screen's


# --- a line, whoever runs it


@contextmanager
def asked_to_stop(ask: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `ask` while the block runs."""
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def running_engine(config: "StationConfig", parts: int | None) -> "Iterator[Engine]":
    """`running` with the configured line."""
    from station.engine import Engine

    with running(Engine(config, parts=parts)) as engine:
        yield engine


@contextmanager
def running(engine: "Engine") -> "Iterator[Engine]":
    """A started line that is stopped in order on the way out; SIGTERM and SIGINT ask for that."""
    from station.engine import StartError

    def ask(number: int, frame: FrameType | None) -> None:
        engine.signal_received = number

    with asked_to_stop(ask), logging_to(engine.config.log_file("engine")):
        try:
            engine.start()
        except StartError as error:
            log.info("the line did not start: %s", error)
            if not engine.signal_received:
                raise
            print(f"station: {error}", file=sys.stderr)
            raise SystemExit(0) from error  # stopped as asked, only early
        try:
            yield engine
        finally:
            if engine.signal_received:
                engine.request_stop(f"{signal.Signals(engine.signal_received).name} received")
            engine.stop(engine.stop_reason or "stopped")


def wait(engine: "Engine") -> None:
    """Until the line wants to be stopped."""
    while not engine.wait(0.2):
        pass


def wait_with_screen(engine: "Engine", config_path: Path, *, kiosk: bool = False) -> None:
    """Until the line wants to be stopped or the screen's window is closed; a screen that crashes is opened
    again."""
    crashes_s: list[float] = []
    command = screen_command(config_path, kiosk=kiosk)
    screen = subprocess.Popen(command)
    try:
        while not engine.wait(0.2):
            status = screen.poll()
            if status is None:
                continue
            if status == 0:
                engine.request_stop("the window was closed")
                return
            now_s = time.monotonic()
            crashes_s = [crash_s for crash_s in crashes_s if now_s - crash_s < 60] + [now_s]
            if len(crashes_s) > _UI_CRASHES_PER_MINUTE:
                print("station: the screen keeps failing; the line runs on without it", file=sys.stderr)
                wait(engine)
                return
            screen = subprocess.Popen(command)
    finally:
        end_screen(screen)


def end_screen(screen: "subprocess.Popen[Any]") -> None:
    """Ask a screen to close, and end it when it does not."""
    screen.terminate()
    try:
        screen.wait(timeout=5)
    except subprocess.TimeoutExpired:
        screen.kill()
        screen.wait()


def screen_command(config_path: Path, *, kiosk: bool = False) -> list[str]:
    """The command that opens the screen; it is a program of its own."""
    return [sys.executable, "-m", "ui", "--config", str(config_path), *(["--kiosk"] if kiosk else [])]


def has_display() -> bool:
    """Whether a window can be opened."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def run_figures(engine: "Engine") -> dict[str, Any]:
    """The run's account and speed, from the record. Truth-dependent keys are null: a real line knows no
    truth."""
    from station.run_figures import read_run, speed_figures

    account = engine.ledger.snapshot()
    parts = read_run(engine.config.database_path, engine.run_id)
    return {
        "triggered": account.triggered,
        "pass": account.passed,
        "recheck": account.recheck,
        "reject": account.reject,
        "not_inspected": account.not_inspected,
        "rows": len(parts),
        "image_auroc": None,
        "escapes": None,
        "overkill": None,
        **speed_figures(parts),
    }


def finish(engine: "Engine", as_json: bool, more_figures: dict[str, Any]) -> int:
    """Say how the run went; 0 when every part is accounted for and no stage failed."""
    from station.ledger import account_text

    account = engine.ledger.snapshot()
    figures = run_figures(engine) | more_figures
    print(f"station: {engine.stop_reason}; {account_text(account)}", file=sys.stderr)
    if as_json:
        print(json.dumps(figures), flush=True)
    whole = account.triggered == account.rows == figures["rows"] and account.balanced()
    if not whole:
        print("station: the account does not balance; see the log", file=sys.stderr)
    return 0 if whole and not engine.fault else 1
