import argparse
import csv
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from db.archive import Archive
from db.errors import RecordMissing
from db.models import EventKind
from db.session import open_database
from db.writer import EventRow, PartRow, Writer
from station.config import load_config
from station.report.build import ReportFacts, ShiftReport, build_report
from station.report.command import add_parser, run
from station.report.csv import write_csv
from station.report.errors import ReportError
from station.report.html import head_text, render_html
from station.report.pdf import write_pdf
from station.report.png import write_pages
from station.shifts import ShiftWindow, last_complete_shift, shift_at

S = 1_000_000_000
START_NS = int(datetime(2026, 11, 24, 6, tzinfo=UTC).timestamp()) * S
WINDOW = ShiftWindow("2026-11-24 A", "A", START_NS, START_NS + 8 * 3600 * S)
EMPTY = ShiftWindow("2026-11-23 C", "C", START_NS - 8 * 3600 * S, START_NS)
ROOT = Path(__file__).parents[2]
PARTS = 1500
MISSING_SEQ = 700
SCORES = {"PASS": 0.3, "RECHECK": 0.9, "NOT_INSPECTED": None}
REASONS = {
    "PASS": "below limit",
    "RECHECK": "above recheck limit",
    "REJECT": "above reject limit",
    "NOT_INSPECTED": "queue & full",
}


def part(seq: int, random: np.random.Generator, archive: Archive) -> PartRow:
    verdict = str(random.choice(["PASS", "REJECT", "RECHECK", "NOT_INSPECTED"], p=[0.94, 0.03, 0.02, 0.01]))
    at_ns = START_NS + seq * 19 * S
    files: dict[str, Any] = {}
    if verdict == "REJECT" and seq % 2:
        image_rgb = np.full((90, 120, 3), (200, 40, 40), np.uint8)
        anomaly_map = np.zeros((9, 12), np.float32)
        anomaly_map[3:6, 4:8] = 3.0
        stored = archive.store(f"p{seq}", at_ns, image_rgb, anomaly_map, lossless=True)
        files = {"image_path": stored.image_path, "map_path": stored.map_path}
    return PartRow(
        uid=f"p{seq}",
        run_id="run-1",
        part_seq=seq,
        camera_id="CAM 1",
        frame_id=seq,
        triggered_unix_ns=at_ns,
        shift_key=WINDOW.key,
        lot='=HYPERLINK("http://x")' if seq > 1000 else "L1",
        recipe="<b>button</b>",
        user="ana",
        verdict=verdict,
        reason={"PASS": "below limit", "NOT_INSPECTED": "queue & full"}.get(
            verdict, f"above {verdict} limit"
        ),
        score=None
        if verdict == "NOT_INSPECTED"
        else {"PASS": 0.3, "RECHECK": 0.9}.get(verdict, 2 + random.random()),
        limit_recheck=0.8,
        limit_reject=1.0,
        model_id="m1",
        latency_ms=float(40 + random.gamma(2, 5)),
        timings_ms={"predict": 20.0},
        **files,
    )


def event(at_s: int, kind: EventKind, title: str, **detail: object) -> EventRow:
    return EventRow(unix_ns=START_NS + at_s * S, kind=kind, severity="high", title=title, detail=detail)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shift of 1500 parts, one of which has no row, with two stops, an alarm and challenge parts."""
    folder = tmp_path_factory.mktemp("report")
    random = np.random.default_rng(7)
    archive = Archive(folder / "images")
    rows = [part(seq, random, archive) for seq in range(1, PARTS + 1) if seq != MISSING_SEQ]
    events = [
        event(5, EventKind.STATE, "RUNNING", state="RUNNING", reason=""),
        event(3600, EventKind.STATE, "PAUSED: lunch", state="PAUSED", reason="lunch"),
        event(4200, EventKind.STATE, "RUNNING", state="RUNNING", reason=""),
        event(7000, EventKind.ALARM, "Camera lost", key="camera"),
        event(7000, EventKind.STATE, "FAULT", state="FAULT", reason="camera lost"),
        event(7030, EventKind.STATE, "RUNNING", state="RUNNING", reason=""),
        event(8000, EventKind.OVERRIDE, "part 5 is good", uid="p5"),
        replace(event(9000, EventKind.CHANGEOVER, "model changed from m1 to m2"), user="Kim"),
        *[event(60 + n, EventKind.CHALLENGE, "challenge", caught=True) for n in range(60)],
    ]
    with closing(open_database(folder / "station.db")) as database, closing(Writer(database)) as writer:
        writer.start_run(
            "run-1", station="S", version="1", config_sha256="c", model_id="m1", started_unix_ns=START_NS
        )
        writer.commit(rows, events)
    return folder


def facts(data_dir: Path, **changed: Any) -> ReportFacts:
    values: dict[str, Any] = {
        "station": "Station <3>",
        "yield_target_percent": 97.0,
        "takt_ms": 1000.0,
        "images_dir": data_dir / "images",
        "created_unix_ns": WINDOW.ended_unix_ns + S,
        "tz": UTC,
    }
    return ReportFacts(**(values | changed))


@pytest.fixture(scope="module")
def report(data_dir: Path) -> ShiftReport:
    return build_report(data_dir / "station.db", WINDOW, facts(data_dir))


def test_every_count_on_the_page_is_the_same_account(report: ShiftReport) -> None:
    assert report.rows == sum(report.counts.values()) == PARTS - 1
    assert {
        verdict: sum(bucket.counts[verdict] for bucket in report.buckets) for verdict in report.counts
    } == report.counts
    assert sum(parts for _, _, parts in report.reasons) == report.rows - report.counts["PASS"]
    assert sum(group.parts for group in report.p_chart.subgroups) == report.rows
    assert len(report.latencies_ms) == report.rows - report.counts["NOT_INSPECTED"]
    assert report.yield_percent == pytest.approx(100 * report.counts["PASS"] / (PARTS - 1))


def test_a_part_without_a_row_is_told(report: ShiftReport) -> None:
    assert report.triggered == PARTS
    html = render_html(report)
    assert "rows missing: 1" in html
    assert "≠" in html


def test_hours_stops_alarms_and_the_escape_bound(report: ShiftReport) -> None:
    assert (report.bucket_s, len(report.buckets)) == (3600, 8)
    assert [(stop.reason, stop.duration_ns(0) // S) for stop in report.stops] == [
        ("lunch", 600),
        ("camera lost", 30),
    ]
    assert [alarm["title"] for alarm in report.alarms] == ["Camera lost"]
    assert (report.challenge.runs, report.challenge.misses) == (60, 0)
    assert report.challenge.escape_bound == pytest.approx(3 / 60, rel=0.05)
    html = render_html(report)
    for words in (
        "Paused: lunch",
        "Fault: camera lost",
        "60 of 60 challenge parts",
        "part 5 is good",
        "Model changes",
        "model changed from m1 to m2",
        "Kim",
    ):
        assert words in html


def test_rejects_are_the_worst_and_show_their_pictures(report: ShiftReport) -> None:
    scores = [reject.score for reject in report.rejects]
    assert scores == sorted(scores, reverse=True)
    with_picture = [reject for reject in report.rejects if reject.picture_jpeg]
    assert 0 < len(with_picture) < len(report.rejects)
    for reject in with_picture:
        assert reject.picture_jpeg is not None and reject.overlay_jpeg is not None
        picture, overlay = (
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(int)
            for data in (reject.picture_jpeg, reject.overlay_jpeg)
        )
        assert picture.shape == overlay.shape == (300, 300, 3)
        blue, green, red = picture[150, 20]
        assert red > 150 and green < 100 and blue < 100  # colours are not swapped
        assert np.ptp(overlay[60, 150]) < 12  # grey where the map is quiet ...
        assert np.ptp(overlay[150, 150]) > 40  # ... and coloured where it is not


def test_the_page_escapes_what_people_typed(report: ShiftReport) -> None:
    html = render_html(report)
    assert "Station &lt;3&gt;" in html
    assert "<b>button</b>" not in html
    assert "queue &amp; full" in html


def test_the_head_of_the_chain_is_on_the_page_and_in_the_code(report: ShiftReport) -> None:
    assert report.part_chain.rows == PARTS - 1
    digest = report.part_chain.head.hash.hex()
    assert digest in render_html(report)
    assert f"part {PARTS - 1} {digest}" in head_text(report)


def test_an_empty_shift_gives_a_sensible_page(data_dir: Path) -> None:
    report = build_report(data_dir / "station.db", EMPTY, facts(data_dir))
    assert (report.rows, report.triggered, report.yield_percent) == (0, 0, None)
    html = render_html(report)
    for words in (
        "no parts in this window",
        "The line did not stop",
        "no challenge part was run",
        "No alarm came",
    ):
        assert words in html


def test_a_running_shift_is_reported_up_to_now(data_dir: Path) -> None:
    now = START_NS + 3900 * S
    report = build_report(data_dir / "station.db", WINDOW, facts(data_dir, created_unix_ns=now))
    assert report.until_unix_ns == now
    assert report.rows == 3900 // 19
    assert report.stops[-1].ended_unix_ns is None
    assert report.stopped_ns == 300 * S
    html = render_html(report)
    assert "still running" in html


def test_a_tampered_record_is_told_on_the_page(data_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "station.db"
    path.write_bytes((data_dir / "station.db").read_bytes())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TRIGGER part_no_update")
        connection.execute("UPDATE part SET latency_ms = 1.0 WHERE id = 42")
    html = render_html(build_report(path, WINDOW, facts(data_dir)))
    assert "The record does not verify: part: row 42 was changed" in html


def test_the_csv_holds_every_row_and_no_formula(data_dir: Path, tmp_path: Path) -> None:
    write_csv(data_dir / "station.db", WINDOW, tmp_path / "parts.csv")
    with (tmp_path / "parts.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == PARTS - 1
    assert {"plc_part_id", "views"} <= set(rows[0])
    assert [int(row["part_seq"]) for row in rows] == [
        seq for seq in range(1, PARTS + 1) if seq != MISSING_SEQ
    ]
    assert {row["lot"] for row in rows} == {"L1", '\'=HYPERLINK("http://x")'}
    assert not [cell for row in rows for cell in row.values() if re.match(r"[=+@\t]|-\D", cell)]
    assert not list(tmp_path.glob("*.tmp"))


@pytest.fixture(scope="module")
def printed(report: ShiftReport, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("printed")
    (folder / "report.html").write_text(render_html(report), encoding="utf-8")
    write_pdf(folder / "report.html", folder / "report.pdf")
    yield folder


@pytest.mark.slow
def test_the_pdf_is_two_full_a4_pages(printed: Path) -> None:
    pages = write_pages(printed / "report.pdf", printed)
    assert [page.name for page in pages] == ["report_page1.png", "report_page2.png"]
    first = cv2.imread(str(pages[0]))
    assert abs(first.shape[0] - 1169) <= 2 and abs(first.shape[1] - 827) <= 2
    inked = (first.min(axis=2) < 200).mean(axis=1) > 0.002
    assert inked[:1080].mean() > 0.6  # full of content to the bottom
    assert not [path for path in printed.iterdir() if path.suffix == ".tmp"]


@pytest.mark.slow
def test_a_page_that_takes_too_long_or_fails_leaves_no_pdf(printed: Path, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="took longer than"):
        write_pdf(printed / "report.html", tmp_path / "a.pdf", timeout_s=0.05)
    with pytest.raises(ReportError, match="could not be printed"):
        write_pdf(tmp_path / "absent.html", tmp_path / "a.pdf")
    (tmp_path / "a.pdf").write_bytes(b"no pdf")
    with pytest.raises(ReportError, match="not a readable PDF"):
        write_pages(tmp_path / "a.pdf", tmp_path)


def command(config: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "station.cli", "report", "--config", str(config), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
    )


@pytest.fixture
def config(tmp_path: Path, data_dir: Path) -> Path:
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    changed, count = re.subn(r"(?m)^( +data_dir:).*$", rf"\1 {data_dir}", text)
    assert count == 1
    path = tmp_path / "config.yaml"
    path.write_text(changed, encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_command_writes_what_was_asked_for(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    window = ["--from", "2026-11-24T06:00", "--to", "2026-11-24T14:00"]
    done = command(config, *window, "--format", "csv,html", "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    name = "shift_2026-11-24_0600_to_2026-11-24_1400"
    assert done.stdout.splitlines() == [f"{out}/{name}.csv", f"{out}/{name}.html"]
    assert sorted(path.name for path in out.iterdir()) == [f"{name}.csv", f"{name}.html"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "docx"], "'docx' is not known; choose from html, pdf, csv"),
        (["--to", "2026-11-24"], "--to needs --from"),
        (["--from", "yesterday"], "'yesterday' is no ISO 8601 time"),
        (["--from", "2026-11-24", "--to", "2026-11-23"], "must be before --to"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(config: Path, arguments: list[str], message: str) -> None:
    done = command(config, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_empty_last_shift_gives_way_to_the_running_one_and_says_so(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_config(config)
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    arguments = [
        "report",
        "--last-shift",
        "--format",
        "html",
        "--config",
        str(config),
        "--out",
        str(tmp_path),
    ]

    def report_at(unix_ns: int) -> str:
        monkeypatch.setattr("time.time_ns", lambda: unix_ns)
        assert run(parser.parse_args(arguments)) == 0
        return Path(capsys.readouterr().out.strip()).read_text(encoding="utf-8")

    first = shift_at(loaded.shifts, START_NS)  # the first shift with parts
    page = report_at(START_NS + 60 * S)
    empty = last_complete_shift(loaded.shifts, START_NS)
    assert f"Shift {empty.key} has no parts; this is the shift that is running" in page
    assert f"<b>Shift {first.key}</b>" in page
    page = report_at(first.ended_unix_ns + S)
    assert "has no parts" not in page
    assert f"<b>Shift {first.key}</b>" in page
    page = report_at(first.ended_unix_ns + 7 * 86_400 * S)
    assert "no parts in this window" in page


def test_where_there_is_no_record(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordMissing, match="no record here"):
        build_report(tmp_path / "station.db", WINDOW, facts(data_dir))
