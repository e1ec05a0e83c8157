"""The tables of the record.

    run    one start-to-stop of the engine
    part   one row per trigger, whatever became of it: append-only, hash-chained
    event  everything else worth keeping: append-only, hash-chained
    hourly parts per hour, shift, verdict and reason, kept in the transaction that writes the parts
    chain  where each chain begins: the last row retention removed, or id 0

Triggers refuse every UPDATE of part and event, and every DELETE above `chain.floor_id`. Only retention moves
that floor, upwards, in the transaction that removes the oldest rows; what is left verifies from there.
Corrections (overrides, acknowledgements) are events, never edits.

Kinds of event, and what `detail` holds where the shift report reads it:
    state        the engine changed state: state, reason (title repeats them in words)
    stop         the line was stopped by somebody or something: reason
    alarm        an alarm came: key, action
    acknowledge  an alarm was acknowledged: key
    override     somebody changed a verdict: uid, old, new, reason
    challenge    a known part was run: expected, verdict, caught (bool)
    command      an operator's command and its answer
    changeover   recipe, lot or model changed: old, new
"""

import enum
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class EventKind(enum.StrEnum):
    """What an event is about."""

    STATE = "state"
    STOP = "stop"
    ALARM = "alarm"
    ACKNOWLEDGE = "acknowledge"
    OVERRIDE = "override"
    CHALLENGE = "challenge"
    COMMAND = "command"
    CHANGEOVER = "changeover"


class Base(DeclarativeBase):
    """All tables of the record."""

    type_annotation_map = {  # noqa: RUF012
        dict[str, Any]: JSON,
        list[dict[str, Any]]: JSON,
        list[list[float]]: JSON,
        bytes: LargeBinary,
    }


class Run(Base):
    """One start-to-stop of the engine; `stopped_unix_ns` stays NULL when it was killed."""

    __tablename__ = "run"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    station: Mapped[str]
    started_unix_ns: Mapped[int] = mapped_column(BigInteger, index=True)
    stopped_unix_ns: Mapped[int | None] = mapped_column(BigInteger)
    version: Mapped[str]
    config_sha256: Mapped[str]
    model_id: Mapped[str]
    stop_reason: Mapped[str | None]


class Part(Base):
    """One triggered part; `db.writer.PartRow` has the fields. `hash` is its link in the chain, 32 bytes."""

    __tablename__ = "part"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    uid: Mapped[str] = mapped_column(unique=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.run_id"))
    part_seq: Mapped[int] = mapped_column(BigInteger)
    camera_id: Mapped[str]
    frame_id: Mapped[int | None] = mapped_column(BigInteger)
    triggered_unix_ns: Mapped[int] = mapped_column(BigInteger)
    shift_key: Mapped[str]
    lot: Mapped[str]
    recipe: Mapped[str]
    user: Mapped[str]
    verdict: Mapped[str]
    reason: Mapped[str]
    score: Mapped[float | None]
    limit_recheck: Mapped[float]
    limit_reject: Mapped[float]
    model_id: Mapped[str]
    latency_ms: Mapped[float]
    timings_ms: Mapped[dict[str, Any]]
    image_path: Mapped[str | None]
    map_path: Mapped[str | None]
    image_shed: Mapped[bool]
    regions: Mapped[list[list[float]]]
    plc_part_id: Mapped[int | None] = mapped_column(BigInteger)
    views: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'"))
    hash: Mapped[bytes]

    __table_args__ = (
        UniqueConstraint("run_id", "part_seq", "camera_id", name="uq_part_run_seq_camera"),
        Index("ix_part_seq", "part_seq"),
        Index("ix_part_time_verdict", "triggered_unix_ns", "verdict"),
        Index("ix_part_shift", "shift_key", "verdict", "reason", "latency_ms"),
        Index("ix_part_not_pass", "triggered_unix_ns", sqlite_where=text("verdict <> 'PASS'")),
        {"sqlite_autoincrement": True},
    )


class Event(Base):
    """One thing that happened; see `db.writer.EventRow` for the fields."""

    __tablename__ = "event"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    uid: Mapped[str] = mapped_column(unique=True)
    unix_ns: Mapped[int] = mapped_column(BigInteger)
    run_id: Mapped[str | None] = mapped_column(ForeignKey("run.run_id"))
    kind: Mapped[str]
    severity: Mapped[str]
    title: Mapped[str]
    detail: Mapped[dict[str, Any]]
    user: Mapped[str]
    hash: Mapped[bytes]

    __table_args__ = (
        Index("ix_event_time_kind", "unix_ns", "kind"),
        {"sqlite_autoincrement": True},
    )


class Hourly(Base):
    """Parts per hour (UTC), shift, verdict and reason."""

    __tablename__ = "hourly"

    hour_unix_s: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    shift_key: Mapped[str] = mapped_column(primary_key=True)
    verdict: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(primary_key=True)
    parts: Mapped[int]


class Chain(Base):
    """Where the chain of a table begins: rows up to `floor_id` are gone, the last had `floor_hash`."""

    __tablename__ = "chain"

    table_name: Mapped[str] = mapped_column(primary_key=True)
    floor_id: Mapped[int]
    floor_hash: Mapped[bytes]
