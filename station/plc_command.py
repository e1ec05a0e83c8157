"""`station plc-sim`: a PLC to try the handshake with, on this machine, before the real one is there."""

import argparse
import threading
from types import FrameType
from typing import TYPE_CHECKING

from station.line_commands import asked_to_stop

if TYPE_CHECKING:
    from drivers.ladder import Ladder

_TELL_S = 1.0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "plc-sim", help="a simulated PLC: triggers parts, shakes hands, sorts; until Ctrl+C"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default %(default)s)")
    parser.add_argument("--port", type=int, default=5020, help="TCP port (default %(default)s)")
    times = (
        ("--interval-ms", 250.0, "time between two parts; 0 = it triggers none"),
        ("--travel-ms", 1500.0, "trigger to gate"),
        ("--acknowledge-ms", 0.0, "how long a result waits for its acknowledge"),
        ("--heartbeat-ms", 1000.0, "a station silent for so long is lost"),
    )
    for name, default, text in times:
        parser.add_argument(
            name, type=_milliseconds, default=default, metavar="MS", help=f"{text} (default {default:g})"
        )
    parser.add_argument(
        "--counts-per-s", type=float, default=1000.0, help="the belt's encoder (default 1000)"
    )
    parser.add_argument("--blind", action="store_true", help="the sensor behind the gate sees nothing")
    parser.set_defaults(func=_plc_sim)


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number (got {text!r})") from error
    if not 0 <= value <= 600_000:
        raise argparse.ArgumentTypeError(f"must be 0 to 600000 (got {text})")
    return value


def _plc_sim(arguments: argparse.Namespace) -> int:
    from drivers.ladder import LadderSettings
    from drivers.plc_simulator import READ_ADDRESS, WRITE_ADDRESS, PlcSimulator

    settings = LadderSettings(
        interval_s=arguments.interval_ms / 1e3,
        travel_s=arguments.travel_ms / 1e3,
        acknowledge_s=arguments.acknowledge_ms / 1e3,
        heartbeat_s=arguments.heartbeat_ms / 1e3,
        counts_per_s=arguments.counts_per_s,
        sees_rejects=not arguments.blind,
    )
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    simulator = PlcSimulator(settings, host=arguments.host, port=arguments.port)
    with asked_to_stop(end), simulator:
        print(
            f"plc: {{driver: modbus, host: {simulator.host}, port: {simulator.port}, "
            f"read_address: {READ_ADDRESS}, write_address: {WRITE_ADDRESS}}}",
            flush=True,
        )
        told = ""
        while not ended.wait(_TELL_S):
            if (text := _told(simulator.ladder)) != told:
                told = text
                print(text, flush=True)
    print(_told(simulator.ladder), flush=True)
    return 0


def _told(ladder: "Ladder") -> str:
    from drivers.plc import VerdictCode

    counts = ladder.counts
    verdicts = ", ".join(
        f"{counts.verdicts[code]} {code.name.lower().replace('_', ' ')}" for code in VerdictCode
    )
    return (
        f"station {'alive' if ladder.alive else 'LOST'}; triggered {counts.triggered} = "
        f"{counts.good_lane} good lane + {counts.reject_lane} reject lane + {ladder.in_transit} on the way; "
        f"offered {verdicts}; {counts.confirmed} confirmed, {counts.unconfirmed} not; "
        f"{counts.heartbeat_losses} heartbeat losses"
    )
