"""`station demo`: the shipped line of simulated buttons, and what it achieved against a truth only this file
knows."""

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from station import line_commands

if TYPE_CHECKING:
    from station.config import StationConfig
    from station.engine import Engine

OFFSCREEN_PARTS = 120
_SCREEN_TIMEOUT_S = 60.0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser("demo", help="run the simulated button line with the model that ships")
    line_commands.add_config_argument(parser)
    parser.add_argument("--headless", action="store_true", help="no screen, no pictures of it")
    parser.add_argument("--parts", type=line_commands.positive_int, metavar="N", help="stop after N parts")
    parser.add_argument("--seed", type=int, metavar="N", help="of the line; default: the configuration's")
    parser.add_argument(
        "--interval-ms", type=float, metavar="MS", help="trigger period; default: the configuration's"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on the last line")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo-output"),
        metavar="DIR",
        help="for the pictures, without a display",
    )
    parser.set_defaults(func=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    config = demo_config(arguments)
    if arguments.headless:
        with line_commands.running_engine(config, arguments.parts or OFFSCREEN_PARTS) as engine:
            line_commands.wait(engine)
    elif line_commands.has_display():
        with line_commands.running_engine(config, arguments.parts) as engine:
            line_commands.wait_with_screen(engine, arguments.config)
    else:
        print(f"station: no display found; the screen runs offscreen, its pictures go to {arguments.out}/")
        parts = arguments.parts or OFFSCREEN_PARTS
        with line_commands.running_engine(config, None) as engine:
            _watch_offscreen(engine, arguments.config, arguments.out, parts)
        _print_report(arguments.config, arguments.out)
    return line_commands.finish(engine, arguments.json, truth(engine))


def demo_config(arguments: argparse.Namespace) -> "StationConfig":
    """The configured line with the command's seed and pace.

    Raises:
        ConfigError: the configured camera is not the simulated one.
    """
    from dataclasses import replace

    from drivers.config import SimulatedConfig
    from station.config import load_config
    from station.yaml_source import ConfigError

    config = load_config(arguments.config)
    camera = config.cameras[0]
    if not isinstance(camera, SimulatedConfig):
        raise ConfigError(
            f"{arguments.config}: cameras.0.driver: the demo needs 'simulated' (got {camera.driver!r}); "
            "use `station run` for this line"
        )
    if len(config.cameras) > 1:
        raise ConfigError(f"{arguments.config}: cameras: the demo needs one; use `station run` for this line")
    trigger = config.trigger
    try:
        if arguments.seed is not None:
            camera = replace(camera, seed=arguments.seed)
        if arguments.interval_ms is not None:
            trigger = type(trigger).model_validate(
                trigger.model_dump() | {"interval_ms": arguments.interval_ms}
            )
    except ValueError as error:
        raise ConfigError(f"--seed or --interval-ms: {' '.join(str(error).split())}") from error
    return config.model_copy(update={"cameras": (camera,), "trigger": trigger})


def truth(engine: "Engine") -> dict[str, Any]:
    """The run's accuracy: its record joined with what the renderer planned for each part."""
    from drivers.buttons import part_truth
    from drivers.config import SimulatedConfig
    from station.run_figures import read_run, truth_figures

    camera = engine.config.cameras[0]
    assert isinstance(camera, SimulatedConfig)
    parts = read_run(engine.config.database_path, engine.run_id)
    defects = [
        part_truth(seed=camera.seed, index=index, defect_rate=camera.defect_rate)[0]
        for index in range(len(parts))
    ]
    return truth_figures(parts, defects)


# --- without a display


def _watch_offscreen(engine: "Engine", config_path: Path, out: Path, parts: int) -> None:
    """Run the real screen on Qt's offscreen platform, and have it draw itself after `parts` parts."""
    out.mkdir(parents=True, exist_ok=True)
    command = [*line_commands.screen_command(config_path), "--screenshot-dir", str(out)]
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    screen = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        while not engine.wait(0.1) and engine.ledger.snapshot().rows < parts:
            pass
        _photograph(screen)
    finally:
        line_commands.end_screen(screen)
        if screen.stdout:
            screen.stdout.close()
    engine.request_stop("demo finished")


def _photograph(screen: "subprocess.Popen[str]") -> None:
    if screen.poll() is not None or screen.stdout is None:
        print(
            f"station: the screen ended with status {screen.returncode}; no pictures of it", file=sys.stderr
        )
        return
    screen.send_signal(signal.SIGUSR1)
    give_up_s = time.monotonic() + _SCREEN_TIMEOUT_S
    while time.monotonic() < give_up_s and screen.poll() is None:
        if not select.select([screen.stdout], [], [], 1.0)[0]:
            continue
        line = screen.stdout.readline()  # the screen prints nothing else, and a line at once
        if line.startswith("{"):
            for path in json.loads(line)["screenshots"]:
                print(f"station: wrote {path}")
            return
    print("station: the screen did not draw itself in time", file=sys.stderr)


def _print_report(config_path: Path, out: Path) -> None:
    """The current shift's report as HTML, PDF and PNG pages."""
    from station.report.png import write_pages

    command = [sys.executable, "-m", "station.cli", "report", "--current-shift", "--format", "html,pdf,csv"]
    subprocess.run([*command, "--config", str(config_path), "--out", str(out)], check=True)
    for pdf in sorted(out.glob("*.pdf")):
        for page in write_pages(pdf, out):
            print(f"station: wrote {page}")
