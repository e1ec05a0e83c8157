"""`station`: one command for everything. Imports are lazy; a wrong argument answers in milliseconds.

Exit status: 0 done, 1 the line ran and something was lost or failed on the way, 2 it could not be done as
asked.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from station import (
    demo_command,
    doctor_command,
    keys_command,
    line_commands,
    model_commands,
    plc_command,
    record_commands,
    support_command,
    use_command,
)
from station.logs import TERMINAL_FORMAT
from station.report import command as report_command


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="station", description="Inline inspection station: camera to verdict."
    )
    parser.add_argument("--verbose", action="store_true", help="log what happens, not only what is wrong")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    line_commands.add_parsers(subparsers)
    demo_command.add_parser(subparsers)
    model_commands.add_parsers(subparsers)
    use_command.add_parser(subparsers)
    report_command.add_parser(subparsers)
    doctor_command.add_parser(subparsers)
    plc_command.add_parser(subparsers)
    keys_command.add_parser(subparsers)
    record_commands.add_parser(subparsers)
    support_command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; known errors are one line on stderr and status 2."""
    arguments = build_parser().parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported; why: see `worker_link`
    # Before OpenCV is imported: 800 MB for a picture of a file, more than any camera's, instead of 3 GB.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.WARNING,
        format=TERMINAL_FORMAT,
        stream=sys.stderr,
    )
    try:
        status: int = arguments.func(arguments)
    except KeyboardInterrupt:
        print("station: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1  # whoever read our output has gone
    except Exception as error:
        if not _is_known(error):
            raise
        print(f"station: {error}", file=sys.stderr)
        return 2
    return status


def _is_known(error: Exception) -> bool:
    """Whether an error is one of the rooms' own: its message says what is wrong and what to do."""
    from db.errors import RecordError
    from drivers.errors import DriverError
    from station.client import CommandError
    from station.engine import StartError
    from station.report.errors import ReportError
    from station.wire_keys import KeysError
    from station.yaml_source import ConfigError
    from varad_core.types import VaradError

    station_errors = ConfigError | KeysError | StartError | CommandError | ReportError
    return isinstance(error, station_errors | VaradError | DriverError | RecordError)


if __name__ == "__main__":
    sys.exit(main())
