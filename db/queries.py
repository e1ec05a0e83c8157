"""Questions to the record: functions that return a `Select`; `read_...` run one and shape its answer.

Times are half-open windows, `start_unix_ns` <= triggered < `end_unix_ns`.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select

from db.models import Event, EventKind, Hourly, Part, Run

_NS_PER_S = 1_000_000_000
_NOT_PASS = Part.verdict != "PASS"  # as in the partial index


def triggered_between(start_unix_ns: int, end_unix_ns: int) -> ColumnElement[bool]:
    """The condition that a part was triggered in a window."""
    return and_(Part.triggered_unix_ns >= start_unix_ns, Part.triggered_unix_ns < end_unix_ns)


def parts_between(start_unix_ns: int, end_unix_ns: int) -> Select[Any]:
    """Every column of every part, oldest first."""
    return (
        select(*Part.__table__.columns)
        .where(triggered_between(start_unix_ns, end_unix_ns))
        .order_by(Part.triggered_unix_ns, Part.id)
    )


def verdict_counts(start_unix_ns: int, end_unix_ns: int) -> Select[str, int]:
    """(verdict, parts) in a window."""
    return (
        select(Part.verdict, func.count())
        .where(triggered_between(start_unix_ns, end_unix_ns))
        .group_by(Part.verdict)
    )


def shift_counts(shift_key: str) -> Select[str, int]:
    """(verdict, parts) of a shift."""
    return select(Part.verdict, func.count()).where(Part.shift_key == shift_key).group_by(Part.verdict)


def hourly_counts(start_unix_ns: int, end_unix_ns: int) -> Select[int, str, int]:
    """(hour in unix seconds, verdict, parts) of every UTC hour that begins in a window, from the roll-up."""
    return (
        select(Hourly.hour_unix_s, Hourly.verdict, func.sum(Hourly.parts))
        .where(
            Hourly.hour_unix_s >= -(-start_unix_ns // _NS_PER_S),
            Hourly.hour_unix_s < -(-end_unix_ns // _NS_PER_S),
        )
        .group_by(Hourly.hour_unix_s, Hourly.verdict)
        .order_by(Hourly.hour_unix_s, Hourly.verdict)
    )


def yield_trend(start_unix_ns: int, end_unix_ns: int, bucket_s: int) -> Select[int, int, int]:
    """(unix seconds, parts, passed) per `bucket_s` seconds from the window's start, without empty buckets."""
    bucket_ns = bucket_s * _NS_PER_S
    bucket = (Part.triggered_unix_ns - start_unix_ns) // bucket_ns
    passed = func.sum(case((Part.verdict == "PASS", 1), else_=0))
    return (
        select(start_unix_ns // _NS_PER_S + bucket * bucket_s, func.count(), passed)
        .where(triggered_between(start_unix_ns, end_unix_ns))
        .group_by(bucket)
        .order_by(bucket)
    )


def reason_counts(start_unix_ns: int, end_unix_ns: int) -> Select[str, str, int]:
    """(verdict, reason, parts) of what did not pass, most frequent first."""
    return (
        select(Part.verdict, Part.reason, func.count())
        .where(triggered_between(start_unix_ns, end_unix_ns), _NOT_PASS)
        .group_by(Part.verdict, Part.reason)
        .order_by(func.count().desc(), Part.reason)
    )


def last_not_passed(limit: int) -> Select[Any]:
    """Every column of the newest parts that did not pass, newest first."""
    return (
        select(*Part.__table__.columns)
        .where(_NOT_PASS)
        .order_by(Part.triggered_unix_ns.desc(), Part.id.desc())
        .limit(limit)
    )


def worst_rejects(start_unix_ns: int, end_unix_ns: int, limit: int) -> Select[Any]:
    """Every column of the rejects with the highest score over their limit, worst first."""
    return (
        select(*Part.__table__.columns)
        .where(
            triggered_between(start_unix_ns, end_unix_ns),
            _NOT_PASS,
            Part.verdict == "REJECT",
            Part.score.is_not(None),
        )
        .order_by((Part.score / Part.limit_reject).desc(), Part.id)
        .limit(limit)
    )


def latencies(start_unix_ns: int, end_unix_ns: int) -> Select[float]:
    """Trigger to verdict in ms of every part that was inspected, ascending."""
    return (
        select(Part.latency_ms)
        .where(triggered_between(start_unix_ns, end_unix_ns), Part.verdict != "NOT_INSPECTED")
        .order_by(Part.latency_ms)
    )


def events_between(
    start_unix_ns: int, end_unix_ns: int, kinds: Sequence[EventKind] = tuple(EventKind)
) -> Select[Any]:
    """Every column of the events of some kinds in a window, oldest first."""
    return (
        select(*Event.__table__.columns)
        .where(Event.unix_ns >= start_unix_ns, Event.unix_ns < end_unix_ns, Event.kind.in_(kinds))
        .order_by(Event.unix_ns, Event.id)
    )


def last_state_before(unix_ns: int) -> Select[Any]:
    """The last state event before a moment, at most one."""
    return (
        select(*Event.__table__.columns)
        .where(Event.unix_ns < unix_ns, Event.kind == EventKind.STATE)
        .order_by(Event.unix_ns.desc(), Event.id.desc())
        .limit(1)
    )


def rows_in_run(run_id: str) -> Select[int]:
    """How many parts of a run are recorded: equal to its triggers once it has stopped."""
    return select(func.count()).select_from(Part).where(Part.run_id == run_id)


def runs_between(start_unix_ns: int, end_unix_ns: int) -> Select[Any]:
    """Every column of the runs that were under way in a window, oldest first."""
    return (
        select(*Run.__table__.columns)
        .where(
            Run.started_unix_ns < end_unix_ns,
            or_(Run.stopped_unix_ns.is_(None), Run.stopped_unix_ns >= start_unix_ns),
        )
        .order_by(Run.started_unix_ns)
    )


def read_counts(connection: Connection, counts: Select[str, int]) -> dict[str, int]:
    """The answer of `verdict_counts` or `shift_counts` as verdict -> parts."""
    return dict(connection.execute(counts).all())


def read_percentiles(connection: Connection, ascending: Select[float]) -> dict[str, float]:
    """The answer of `latencies` as nearest-rank p50, p95, p99 and max; empty where there is no part."""
    values = list(connection.execute(ascending).scalars())
    if not values:
        return {}
    ranks = {f"p{percent}": -(-len(values) * percent // 100) - 1 for percent in (50, 95, 99)}
    return {name: values[rank] for name, rank in ranks.items()} | {"max": values[-1]}


def read_known_files(connection: Connection) -> set[str]:
    """Every picture and map a row names, its own and its views', for `db.archive.Archive.sweep`."""
    known: set[str] = set()
    for views in connection.execute(select(Part.views).where(Part.views != [])).scalars():
        known.update(view[name] for view in views for name in ("image_path", "map_path") if view[name])
    for column in (Part.image_path, Part.map_path):
        known.update(connection.execute(select(column).where(column.is_not(None))).scalars())  # type: ignore
    return known
