"""One zip file with what a support engineer asks for first. Looks only, and works on a broken station.

No pictures and no keys unless asked for; never a private key. Passwords and the like in the configuration
are blacked out. What cannot be read leaves its reason in the file's place.
"""

import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from sqlalchemy import select

from db.archive import Archive
from db.errors import record_errors
from db.models import Base, Event, Part, Run
from db.session import open_read_only
from station.config import StationConfig, load_config
from station.doctor_command import findings
from station.run_figures import speed_figures
from station.yaml_source import ConfigError

_LOG_BYTES = 50_000_000  # the newest files, together
_ROWS = {Part: 1000, Event: 1000, Run: 50}
_FIGURES_PARTS = 20_000
_COMMAND_TIMEOUT_S = 20
_UNIT = "varad-station.service"

Section = tuple[str, Callable[[], bytes | str]]


def write_bundle(config_path: Path, target: Path, *, images: int = 0, keys: bool = False) -> list[str]:
    """Write the zip file; it appears whole or not at all, for this user alone to read.

    Args:
        config_path: of the line; it may be broken.
        target: the zip file.
        images: so many of the newest pictures and maps go in.
        keys: the public keys that may sign models go in.

    Returns:
        What could not be read, a line each.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = target.with_name(target.name + ".tmp")
    missing = []
    temporary.unlink(missing_ok=True)
    file = os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    try:
        with file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, read in _sections(config_path, images, keys):
                try:
                    content = read()
                except Exception as error:  # noqa: BLE001 - a station that is broken is what this is for
                    missing.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")
                    content = missing[-1] + "\n"
                bundle.writestr(name, content)
            bundle.writestr("missing.txt", "".join(f"{line}\n" for line in missing))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return missing


def _sections(config_path: Path, images: int, keys: bool) -> Iterator[Section]:
    """Name and content; the content is read when its turn comes, and may fail."""
    yield "config.yaml", lambda: redact(config_path.read_text("utf-8", "replace"))
    yield "versions.json", _versions
    yield "systemd.txt", _systemd
    try:
        config = load_config(config_path)
    except ConfigError as error:
        told = str(error)
        yield "doctor.txt", lambda: f"fail  config     {redact(told)}\n"
        return
    yield "doctor.txt", lambda: _doctor(config)
    for path in _newest(list(config.logs_dir.glob("*.jsonl*")), _LOG_BYTES):
        yield f"logs/{path.name}", path.read_bytes
    for table, most in _ROWS.items():
        yield f"record/{table.__tablename__}s.jsonl", lambda t=table, n=most: _rows(config, t, n)  # type: ignore[misc]
    yield "figures.json", lambda: _figures(config)
    if images:
        yield from _images(Archive(config.images_dir), images)
    if keys:
        for path in sorted(config.trusted_keys.glob("*.pub")):
            yield f"keys/{path.name}", lambda p=path: _public(p)  # type: ignore[misc]


# --- the configuration without its secrets

_SECRET = re.compile(
    r"^(.*?[\w-]*(?:passw(?:or)?d|passphrase|secret|credential|(?<![a-z])tokens?(?![a-z])|api_?key"
    r"|private_?key)[\w-]*[\"']?\s*[:=]).*$",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"(//[^/\s:@]+:)[^@\s/]+@")


def redact(text: str) -> str:
    """The text, with what stands behind a key such as `password:` blacked out, on following lines too."""
    lines: list[str] = []
    deeper_than: int | None = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if deeper_than is not None and (not line.strip() or indent > deeper_than):
            continue
        deeper_than = None
        if secret := _SECRET.match(line):
            deeper_than = indent
            line = f"{secret[1]} REDACTED"  # noqa: PLW2901
        lines.append(_LOGIN.sub(r"\1REDACTED@", line))
    return "\n".join(lines) + "\n"


# --- this machine


def _versions() -> str:
    release = Path("/etc/os-release")
    facts = {
        "python": sys.version,
        "program": sys.executable,
        "platform": platform.platform(),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "system": release.read_text().splitlines() if release.exists() else [],
        "sqlite": sqlite3.sqlite_version,
        "gpu": _run("nvidia-smi", "-L") if shutil.which("nvidia-smi") else "no nvidia-smi",
        "packages": dict(sorted((found.name, found.version) for found in distributions())),
    }
    return json.dumps(facts, indent=1)


def _systemd() -> str:
    if not Path("/run/systemd/system").is_dir():
        return "systemd does not run here\n"
    status = _run("systemctl", "status", "--no-pager", "--full", "--lines=50", _UNIT)
    return status + "\n" + _run("journalctl", "--no-pager", "--output=short-iso", "--lines=500", "-u", _UNIT)


def _run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_COMMAND_TIMEOUT_S, errors="replace"
    )
    return f"$ {' '.join(command)}  (status {done.returncode})\n{done.stdout}{done.stderr}"


def _doctor(config: StationConfig) -> str:
    told = (f"{state:5} {name:10} {text}\n" for name, (state, text) in findings(config, beside_line=True))
    return "".join(told)


def _public(path: Path) -> bytes:
    """A public key.

    Raises:
        ValueError: it is a private one under the wrong name.
    """
    content = path.read_bytes()
    if b"PRIVATE" in content:
        raise ValueError("holds a private key; move it away from the public ones")
    return content


def _newest(paths: list[Path], most_bytes: int) -> list[Path]:
    """The newest files that together stay below `most_bytes`; at least one. Some may go meanwhile."""
    found = [(path.stat(), path) for path in paths if path.exists()]
    kept: list[Path] = []
    for facts, path in sorted(found, key=lambda pair: pair[0].st_mtime, reverse=True):
        most_bytes -= facts.st_size
        if kept and most_bytes < 0:
            break
        kept.append(path)
    return kept


# --- the record


def _rows(config: StationConfig, table: type[Base], most: int) -> str:
    """The last rows of a table, oldest first, a JSON object a line."""
    columns = table.__table__.columns
    newest_first = columns["id"] if "id" in columns else columns["started_unix_ns"]
    statement = select(*columns).order_by(newest_first.desc()).limit(most)
    rows = _read(config, statement)
    return "".join(f"{json.dumps(row, default=bytes.hex)}\n" for row in reversed(rows))


def _figures(config: StationConfig) -> str:
    """Verdicts, reasons and speed of the last runs, as far as the last parts tell."""
    columns = (Part.run_id, Part.verdict, Part.reason, Part.latency_ms, Part.triggered_unix_ns)
    rows = _read(config, select(*columns).order_by(Part.id.desc()).limit(_FIGURES_PARTS))
    runs: dict[str, list[dict[str, Any]]] = {}
    for row in reversed(rows):
        runs.setdefault(row["run_id"], []).append(row)
    figures = {
        run_id: {
            "parts": len(parts),
            "first_unix_ns": parts[0]["triggered_unix_ns"],
            "verdicts": Counter(f"{part['verdict']}: {part['reason']}" for part in parts),
            **speed_figures(list(parts)),
        }
        for run_id, parts in runs.items()
    }
    return json.dumps(figures, indent=1)


def _read(config: StationConfig, statement: Any) -> list[dict[str, Any]]:
    database = open_read_only(config.database_path)
    try:
        with record_errors(database.path), database.connect() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]
    finally:
        database.close()


def _images(archive: Archive, most: int) -> Iterator[Section]:
    for hour in reversed(archive.hours()):
        files = [path for path in hour.iterdir() if path.suffix != ".tmp"]
        for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
            if most == 0:
                return
            most -= 1
            yield f"images/{path.relative_to(archive.root).as_posix()}", path.read_bytes
