"""A correction goes to an audience of its own, and holds the suppressions of the campaign that it corrects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    op.add_column("campaign", sa.Column("permission_audience_id", sa.BigInteger()))
