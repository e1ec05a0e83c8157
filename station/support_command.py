"""`station support-bundle`: one file to send to whoever is to help."""

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from station.line_commands import add_config_argument, positive_int

_BESIDE_THE_LINE = 10  # niceness: a line that runs goes first


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "support-bundle",
        help="one zip file for support: configuration, findings, logs, last rows; no pictures, no keys",
    )
    add_config_argument(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: support-TIME.zip here")
    parser.add_argument(
        "--images", type=positive_int, default=0, metavar="N", help="add the newest N pictures and maps"
    )
    parser.add_argument("--keys", action="store_true", help="add the public keys; private ones never go in")
    parser.set_defaults(func=_support_bundle)


def _support_bundle(arguments: argparse.Namespace) -> int:
    os.nice(_BESIDE_THE_LINE)
    from station.support_bundle import write_bundle
    from station.yaml_source import ConfigError

    target = arguments.out or Path(datetime.now(UTC).strftime("support-%Y%m%dT%H%M%SZ.zip"))
    try:
        missing = write_bundle(arguments.config, target, images=arguments.images, keys=arguments.keys)
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be written ({error.strerror}); give another file with --out"
        ) from error
    for line in missing:
        print(f"station: not in it: {line}", file=sys.stderr)
    print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB); look into it before you send it")
    return 0
