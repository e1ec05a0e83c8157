"""The record: runs, parts, events, hourly counts, chains."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run",
        sa.Column("run_id", sa.String(), primary_key=True),
        sa.Column("station", sa.String(), nullable=False),
        sa.Column("started_unix_ns", sa.BigInteger(), nullable=False),
        sa.Column("stopped_unix_ns", sa.BigInteger()),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("config_sha256", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("stop_reason", sa.String()),
    )
    op.create_index("ix_run_started_unix_ns", "run", ["started_unix_ns"])
    op.create_table(
        "part",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("uid", sa.String(), nullable=False, unique=True),
        sa.Column("run_id", sa.String(), sa.ForeignKey("run.run_id"), nullable=False),
        sa.Column("part_seq", sa.BigInteger(), nullable=False),
        sa.Column("camera_id", sa.String(), nullable=False),
        sa.Column("frame_id", sa.BigInteger()),
        sa.Column("triggered_unix_ns", sa.BigInteger(), nullable=False),
        sa.Column("shift_key", sa.String(), nullable=False),
        sa.Column("lot", sa.String(), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("score", sa.Double()),
        sa.Column("limit_recheck", sa.Double(), nullable=False),
        sa.Column("limit_reject", sa.Double(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.Column("timings_ms", sa.JSON(), nullable=False),
        sa.Column("image_path", sa.String()),
        sa.Column("map_path", sa.String()),
        sa.Column("image_shed", sa.Boolean(), nullable=False),
        sa.Column("regions", sa.JSON(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("run_id", "part_seq", "camera_id", name="uq_part_run_seq_camera"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_part_seq", "part", ["part_seq"])
    op.create_index("ix_part_time_verdict", "part", ["triggered_unix_ns", "verdict"])
    op.create_index("ix_part_shift", "part", ["shift_key", "verdict", "reason", "latency_ms"])
    op.create_index(
        "ix_part_not_pass", "part", ["triggered_unix_ns"], sqlite_where=sa.text("verdict <> 'PASS'")
    )
    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("uid", sa.String(), nullable=False, unique=True),
        sa.Column("unix_ns", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(), sa.ForeignKey("run.run_id")),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_time_kind", "event", ["unix_ns", "kind"])
    op.create_table(
        "hourly",
        sa.Column("hour_unix_s", sa.BigInteger(), primary_key=True),
        sa.Column("shift_key", sa.String(), primary_key=True),
        sa.Column("verdict", sa.String(), primary_key=True),
        sa.Column("reason", sa.String(), primary_key=True),
        sa.Column("parts", sa.Integer(), nullable=False),
    )
    op.create_table(
        "chain",
        sa.Column("table_name", sa.String(), primary_key=True),
        sa.Column("floor_id", sa.Integer(), nullable=False),
        sa.Column("floor_hash", sa.LargeBinary(), nullable=False),
    )
    op.execute("INSERT INTO chain VALUES ('part', 0, zeroblob(32)), ('event', 0, zeroblob(32))")
    for table in ("part", "event"):
        op.execute(
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} "
            f"WHEN OLD.id > (SELECT floor_id FROM chain WHERE table_name = '{table}') "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: retention alone removes old rows'); END"
        )
    op.execute(
        "CREATE TRIGGER chain_only_up BEFORE UPDATE ON chain "
        "WHEN NEW.floor_id < OLD.floor_id OR NEW.table_name <> OLD.table_name "
        "BEGIN SELECT RAISE(ABORT, 'the floor of a chain only rises'); END"
    )
    op.execute(
        "CREATE TRIGGER chain_no_delete BEFORE DELETE ON chain "
        "BEGIN SELECT RAISE(ABORT, 'the floor of a chain only rises'); END"
    )
