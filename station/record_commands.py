"""`station restore`: put a backup in the record's place."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from station.line_commands import add_config_argument


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    restore = subparsers.add_parser(
        "restore", help="put a backup in the record's place; what it replaces is kept aside"
    )
    restore.add_argument("backup", type=Path, metavar="BACKUP", help="a file in the folder of backups")
    add_config_argument(restore)
    restore.set_defaults(func=_restore)


def _restore(arguments: argparse.Namespace) -> int:
    from db.archive import Archive
    from db.restore import restore
    from station.config import load_config

    config = load_config(arguments.config)
    aside = config.station.data_dir / datetime.now(UTC).strftime("replaced-%Y%m%dT%H%M%SZ")
    done = restore(arguments.backup, config.database_path, Archive(config.images_dir), aside)
    until = ""
    if done.newest_unix_ns is not None:
        newest = datetime.fromtimestamp(done.newest_unix_ns / 1e9).astimezone()
        until = f", the last of {newest:%Y-%m-%d %H:%M:%S %Z}"
    print(f"restored  {arguments.backup}: {done.parts} parts{until}")
    if done.aside:
        print(f"aside     {done.aside}: what was here, and {done.pictures} pictures and maps without a row")
    print("next      start the station; its first alarm names the rows that the backup does not hold")
    return 0
