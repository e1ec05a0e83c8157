"""Parts: the PLC's id, and what each camera of several saw."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Their defaults stand in db.chain.ADDED_LATER: earlier rows keep their hashes.
    op.add_column("part", sa.Column("plc_part_id", sa.BigInteger()))
    op.add_column("part", sa.Column("views", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))
