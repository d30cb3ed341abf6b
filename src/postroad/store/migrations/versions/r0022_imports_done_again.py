"""A file is imported again once another import changed recipients after it.

Which of the earlier imports were the last to change anything is not known, except of the newest one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    # SQLite keeps a unique constraint for good, and follows a column that is renamed.
    op.execute("ALTER TABLE audience_import RENAME COLUMN sha256 TO current_key")
    op.add_column("audience_import", sa.Column("sha256", sa.String(64), nullable=False, server_default=sa.text("''")))
    op.execute("UPDATE audience_import SET sha256 = current_key")
    op.execute(
        "UPDATE audience_import SET current_key = '#' || id WHERE rows_done > 0 "
        "AND id < (SELECT max(newest.id) FROM audience_import AS newest WHERE newest.rows_done > 0)"
    )
