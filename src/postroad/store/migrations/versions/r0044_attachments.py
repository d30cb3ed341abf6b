"""When an attachment was last requested, so that it can be deleted, and an index of the requests that have one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import UtcDateTime

revision = "0044"
down_revision = "0043"

_HAS_FILES = sa.text("files <> '[]'")
_REQUESTED = sa.text("requested_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("stored_file", sa.Column("requested_at", UtcDateTime()))
    op.create_index(
        "ix_stored_file_requested",
        "stored_file",
        ["requested_at", "digest"],
        sqlite_where=_REQUESTED,
        postgresql_where=_REQUESTED,
    )
    op.create_index(
        "ix_message_request_files",
        "message_request",
        ["created_at", "id"],
        sqlite_where=_HAS_FILES,
        postgresql_where=_HAS_FILES,
    )
