"""Read one window of the record into a `ShiftReport`: everything the page shows, and nothing about how."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, func, select

from db.archive import Archive
from db.chain import ChainCheck, head_before, verify
from db.errors import RecordError
from db.models import EventKind, Part
from db.queries import (
    events_between,
    last_state_before,
    latencies,
    read_counts,
    read_percentiles,
    reason_counts,
    triggered_between,
    verdict_counts,
    worst_rejects,
)
from db.session import open_read_only
from station.report.pictures import overlay, picture
from station.report.statistics import PChart, bucket_s, escape_bound, p_chart
from station.report.stops import Stop, stops_in
from station.shifts import ShiftWindow
from station.types import Verdict

NS_PER_S = 1_000_000_000
REJECTS_SHOWN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """What the record does not know.

    Attributes:
        station: its name.
        yield_target_percent: as configured.
        takt_ms: time per part of the line, the latency's yardstick.
        images_dir: the archive's root.
        created_unix_ns: now; a window that has not ended yet is reported up to here.
        note: one line for the page's head, e.g. why this shift and not another; empty for none.
        tz: for every time on the page; None = the machine's own.
    """

    station: str
    yield_target_percent: float
    takt_ms: float
    images_dir: Path
    created_unix_ns: int
    note: str = ""
    tz: tzinfo | None = None


@dataclass(frozen=True, slots=True)
class Bucket:
    """Parts of one interval, by verdict."""

    started_unix_ns: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RejectedPart:
    """One rejected part with its pictures, JPEG; None where retention or a full disk left none."""

    part_seq: int
    triggered_unix_ns: int
    score: float
    limit_reject: float
    picture_jpeg: bytes | None
    overlay_jpeg: bytes | None


@dataclass(frozen=True, slots=True)
class Challenge:
    """Known-bad parts that were run, those that were not caught, and what follows with 95 % confidence."""

    runs: int
    misses: int
    escape_bound: float | None


@dataclass(frozen=True, slots=True)
class ShiftReport:
    """One window of the record.

    Attributes:
        until_unix_ns: the window's end, or the moment of the report where that came first.
        counts: verdict -> parts, every verdict present.
        triggered: parts by their numbers (last - first + 1 of each run), independent of the count of rows.
        context: what the rows say was in force: recipe, lot, user, model_id, limits; each a list in order of
            use. buckets: parts over time, equal intervals of `bucket_s` without gaps. reasons: (verdict,
            reason, parts) of what did not pass, most frequent first. latencies_ms: of every inspected part,
            ascending. percentiles_ms: p50, p95, p99, max; empty without parts. alarms, overrides, changeovers
            (to another model): events, oldest first. part_chain, event_chain: verified from this window's
            first row to the head of the record. rows_total: all rows the record holds now.
    """

    window: ShiftWindow
    facts: ReportFacts
    until_unix_ns: int
    counts: Mapping[str, int]
    triggered: int
    context: Mapping[str, Sequence[str]]
    bucket_s: int
    buckets: tuple[Bucket, ...]
    reasons: tuple[tuple[str, str, int], ...]
    p_chart: PChart
    latencies_ms: tuple[float, ...]
    percentiles_ms: Mapping[str, float]
    stops: tuple[Stop, ...]
    alarms: tuple[Mapping[str, Any], ...]
    overrides: tuple[Mapping[str, Any], ...]
    changeovers: tuple[Mapping[str, Any], ...]
    challenge: Challenge
    rejects: tuple[RejectedPart, ...]
    part_chain: ChainCheck
    event_chain: ChainCheck
    rows_total: int

    @property
    def rows(self) -> int:
        """Parts recorded in the window."""
        return sum(self.counts.values())

    @property
    def yield_percent(self) -> float | None:
        """Passed of recorded parts; None without parts."""
        return 100 * self.counts[Verdict.PASS] / self.rows if self.rows else None

    @property
    def stopped_ns(self) -> int:
        """All stops together."""
        return sum(stop.duration_ns(self.until_unix_ns) for stop in self.stops)

    def longest_stops(self, count: int) -> list[Stop]:
        """The longest stops, in order of time."""
        longest = sorted(self.stops, key=lambda stop: -stop.duration_ns(self.until_unix_ns))[:count]
        return sorted(longest, key=lambda stop: stop.started_unix_ns)


def build_report(database_path: Path, window: ShiftWindow, facts: ReportFacts) -> ShiftReport:
    """Read one window; beside a running station, or after it.

    Raises:
        RecordError: see `db.errors`; there is no record, or it cannot be read.
    """
    with closing(open_read_only(database_path)) as database, database.connect() as connection:
        return _build(connection, window, facts)


def _build(connection: Connection, window: ShiftWindow, facts: ReportFacts) -> ShiftReport:
    until_unix_ns = max(window.started_unix_ns, min(window.ended_unix_ns, facts.created_unix_ns))
    span = (window.started_unix_ns, until_unix_ns)
    counts = dict.fromkeys(map(str, Verdict), 0) | read_counts(connection, verdict_counts(*span))
    sequence = connection.execute(
        select(Part.triggered_unix_ns, Part.verdict)
        .where(triggered_between(*span))
        .order_by(Part.triggered_unix_ns)
    ).all()
    interval_s, buckets = _buckets(sequence, window, until_unix_ns)
    events = _dicts(connection, events_between(*span))
    before = next(iter(_dicts(connection, last_state_before(window.started_unix_ns))), None)
    of_kind = {kind: [event for event in events if event["kind"] == kind] for kind in EventKind}
    first_id = connection.execute(select(func.min(Part.id)).where(triggered_between(*span))).scalar()
    since = head_before(connection, "part", first_id) if first_id is not None else None
    challenges = of_kind[EventKind.CHALLENGE]
    misses = sum(not event["detail"].get("caught", False) for event in challenges)
    latencies_ms = connection.execute(latencies(*span)).scalars().all()
    return ShiftReport(
        window=window,
        facts=facts,
        until_unix_ns=until_unix_ns,
        counts=counts,
        triggered=_triggered(connection, span),
        context=_context(connection, span),
        bucket_s=interval_s,
        buckets=buckets,
        reasons=tuple(
            (verdict, reason, parts) for verdict, reason, parts in connection.execute(reason_counts(*span))
        ),
        p_chart=p_chart([(unix_ns, verdict == Verdict.PASS) for unix_ns, verdict in sequence]),
        latencies_ms=tuple(latencies_ms),
        percentiles_ms=read_percentiles(connection, latencies(*span)),
        stops=tuple(
            stops_in(
                [event for event in events if event["kind"] in (EventKind.STATE, EventKind.STOP)],
                before,
                window.started_unix_ns,
            )
        ),
        alarms=tuple(of_kind[EventKind.ALARM]),
        overrides=tuple(of_kind[EventKind.OVERRIDE]),
        changeovers=tuple(of_kind[EventKind.CHANGEOVER]),
        challenge=Challenge(len(challenges), misses, escape_bound(len(challenges), misses)),
        rejects=tuple(_rejects(connection, span, facts)),
        part_chain=verify(connection, "part", since),
        event_chain=verify(connection, "event"),
        rows_total=connection.execute(select(func.count()).select_from(Part)).scalar() or 0,
    )


def _triggered(connection: Connection, span: tuple[int, int]) -> int:
    """Parts by their numbers: a row that is missing between two others is counted here, and not among the
    rows."""
    runs = connection.execute(
        select(func.max(Part.part_seq) - func.min(Part.part_seq) + 1)
        .where(triggered_between(*span))
        .group_by(Part.run_id)
    )
    return sum(runs.scalars())


def _context(connection: Connection, span: tuple[int, int]) -> dict[str, list[str]]:
    columns = (Part.recipe, Part.lot, Part.user, Part.model_id, Part.limit_recheck, Part.limit_reject)
    rows = connection.execute(
        select(*columns, func.count(Part.score).label("scored"))
        .where(triggered_between(*span))
        .group_by(*columns)
        .order_by(func.min(Part.triggered_unix_ns))
    ).all()
    named: dict[str, list[str]] = {
        "recipe": [row.recipe for row in rows],
        "lot": [row.lot for row in rows],
        "user": [row.user for row in rows],
        "model_id": [row.model_id for row in rows],
        "limits": [
            f"{row.limit_reject:.4g}"
            if row.limit_recheck == row.limit_reject
            else f"recheck {row.limit_recheck:.4g}, reject {row.limit_reject:.4g}"
            for row in rows
            if row.scored  # where no part had a score, no limit was in force
        ],
    }
    return {name: [value for value in dict.fromkeys(values) if value] for name, values in named.items()}


def _buckets(
    sequence: Sequence[Any], window: ShiftWindow, until_unix_ns: int
) -> tuple[int, tuple[Bucket, ...]]:
    """Parts over time. A window that has ended is shown whole; one that goes on, from its first part to
    now."""
    start_unix_ns = window.started_unix_ns
    if until_unix_ns < window.ended_unix_ns and sequence:
        start_unix_ns = sequence[0].triggered_unix_ns
    interval_s = bucket_s((until_unix_ns - start_unix_ns) / NS_PER_S)
    interval_ns = interval_s * NS_PER_S
    first = (start_unix_ns - window.started_unix_ns) // interval_ns
    last = max(first, (until_unix_ns - 1 - window.started_unix_ns) // interval_ns)
    counted = Counter(
        ((row.triggered_unix_ns - window.started_unix_ns) // interval_ns, row.verdict) for row in sequence
    )
    return interval_s, tuple(
        Bucket(
            window.started_unix_ns + number * interval_ns,
            {verdict: counted[number, verdict] for verdict in map(str, Verdict)},
        )
        for number in range(first, last + 1)
    )


def _dicts(connection: Connection, question: Select[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(question).mappings()]


def _rejects(connection: Connection, span: tuple[int, int], facts: ReportFacts) -> list[RejectedPart]:
    archive = Archive(facts.images_dir)
    return [_rejected(archive, part) for part in _dicts(connection, worst_rejects(*span, REJECTS_SHOWN))]


def _rejected(archive: Archive, part: Mapping[str, Any]) -> RejectedPart:
    picture_jpeg = overlay_jpeg = None
    if part["image_path"]:
        try:
            image_rgb = archive.load_image(part["image_path"])
            picture_jpeg = picture(image_rgb)
            if part["map_path"]:
                overlay_jpeg = overlay(image_rgb, archive.load_map(part["map_path"]), part["limit_reject"])
        except RecordError:
            pass  # a picture that is gone or damaged is shown as such; the row is what counts
    return RejectedPart(
        part["part_seq"],
        part["triggered_unix_ns"],
        part["score"],
        part["limit_reject"],
        picture_jpeg,
        overlay_jpeg,
    )
