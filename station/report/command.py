"""`station report`: one window of the record as files."""

import argparse
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from station.report.errors import ReportError

if TYPE_CHECKING:
    from station.config import StationConfig
    from station.report.build import ReportFacts
    from station.shifts import ShiftWindow

FORMATS = ("html", "pdf", "csv")
_NS_PER_S = 1_000_000_000


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    from station.line_commands import add_config_argument

    parser = subparsers.add_parser("report", help="write a shift report", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--last-shift", action="store_true", help="the last complete shift (the default)")
    which.add_argument("--current-shift", action="store_true", help="the shift that is running, up to now")
    which.add_argument(
        "--from", dest="start", metavar="TIME", help="ISO 8601, local unless it says otherwise"
    )
    parser.add_argument("--to", dest="end", metavar="TIME", help="with --from; now if left out")
    parser.add_argument(
        "--format", default="html,pdf", help="comma-separated: html, pdf, csv (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="folder for the files (default: reports in data_dir)")
    add_config_argument(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write the files and print their paths.

    Raises:
        ConfigError, RecordError, ReportError: one line each.
    """
    formats = _formats(args.format)
    if args.end and not args.start:
        raise ReportError("--to needs --from: give both ends of the window")
    from station.config import load_config

    config = load_config(args.config)
    now_unix_ns = time.time_ns()
    window, note = _window(args, config, now_unix_ns)
    folder = args.out or config.station.data_dir / "reports"
    if note:
        print(f"station: {note}", file=sys.stderr)
    for path in write_report(config, window, note, now_unix_ns, formats, folder):
        print(path)
    return _tell_faults(config)


def _tell_faults(config: "StationConfig") -> int:
    """Verify the whole record, whatever was printed of it; 1 when somebody altered it."""
    from contextlib import closing

    from db.chain import read_faults
    from db.session import open_read_only

    with closing(open_read_only(config.database_path)) as database, database.connect() as connection:
        faults = read_faults(connection)
    for fault in faults:
        print(f"station: the record was altered: {fault}; compare it with a backup", file=sys.stderr)
    return 1 if faults else 0


def write_report(
    config: "StationConfig",
    window: "ShiftWindow",
    note: str,
    created_unix_ns: int,
    formats: tuple[str, ...],
    folder: Path,
) -> list[Path]:
    """Write one window in some of `FORMATS`; the paths, in the order of `formats`."""
    from station.report.build import ReportFacts

    facts = ReportFacts(
        station=config.station.name,
        yield_target_percent=config.line.yield_target_percent,
        takt_ms=config.line.takt_ms,
        images_dir=config.images_dir,
        created_unix_ns=created_unix_ns,
        note=note,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(
            f"{folder}: cannot be created ({error.strerror}); choose another with --out"
        ) from error
    name = "shift_" + window.key.replace(":", "").replace(" ", "_")
    paths = {form: folder / f"{name}.{form}" for form in formats}
    _write_html_and_pdf(config.database_path, window, facts, paths, folder / f"{name}.html")
    if "csv" in paths:
        from station.report.csv import write_csv

        write_csv(config.database_path, window, paths["csv"])
    return list(paths.values())


def _write_html_and_pdf(
    database_path: Path, window: "ShiftWindow", facts: "ReportFacts", paths: dict[str, Path], html_path: Path
) -> None:
    if not {"html", "pdf"} & set(paths):
        return
    from station.report.build import build_report
    from station.report.html import render_html
    from station.report.pdf import write_pdf

    html = render_html(build_report(database_path, window, facts))
    temporary = html_path.with_name(html_path.name + ".tmp")
    try:
        temporary.write_text(html, encoding="utf-8")
        temporary.replace(html_path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ReportError(
            f"{html_path}: cannot be written ({error.strerror}); choose another folder with --out"
        ) from error
    if "pdf" in paths:
        write_pdf(html_path, paths["pdf"])
        if "html" not in paths:
            html_path.unlink()


def _formats(text: str) -> tuple[str, ...]:
    formats = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",")))
    if unknown := [word for word in formats if word not in FORMATS]:
        raise ReportError(f"--format: {unknown[0]!r} is not known; choose from {', '.join(FORMATS)}")
    return formats


def _window(args: argparse.Namespace, config: "StationConfig", now_unix_ns: int) -> "tuple[ShiftWindow, str]":
    """The window that was asked for, and a note where another one is shown."""
    from station.shifts import ShiftWindow, last_complete_shift, shift_at

    if args.start:
        start_unix_ns = _unix_ns("--from", args.start)
        end_unix_ns = _unix_ns("--to", args.end) if args.end else now_unix_ns
        if start_unix_ns >= end_unix_ns:
            raise ReportError(f"--from {args.start} must be before --to {args.end or 'now'}")
        key = " to ".join(
            f"{datetime.fromtimestamp(t // _NS_PER_S):%Y-%m-%d %H:%M}" for t in (start_unix_ns, end_unix_ns)
        )
        return ShiftWindow(key, "", start_unix_ns, end_unix_ns), ""
    current = shift_at(config.shifts, now_unix_ns)
    if args.current_shift:
        return current, ""
    last = last_complete_shift(config.shifts, now_unix_ns)
    if _parts(config, last) == 0 and _parts(config, current) > 0:
        return current, f"Shift {last.key} has no parts; this is the shift that is running, up to now."
    return last, ""


def _parts(config: "StationConfig", window: "ShiftWindow") -> int:
    from contextlib import closing

    from db.queries import read_counts, verdict_counts
    from db.session import open_read_only

    with (
        closing(open_read_only(config.database_path)) as database,
        database.connect() as connection,
    ):
        counts = read_counts(connection, verdict_counts(window.started_unix_ns, window.ended_unix_ns))
    return sum(counts.values())


def _unix_ns(option: str, text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp()) * _NS_PER_S
    except ValueError as error:
        raise ReportError(f"{option}: {text!r} is no ISO 8601 time such as 2026-11-24T06:00") from error
