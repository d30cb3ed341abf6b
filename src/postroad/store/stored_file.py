"""Files of steps and of requested messages: attachments and images, each stored once by its digest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, col

from postroad.store.types import PartialIndex, StoredRow, UtcDateTime


class StoredFile(StoredRow, table=True):
    """An attachment or image, stored once for all steps that use it. Workers on other hosts read it from here."""

    __tablename__ = "stored_file"
    __table_args__ = (
        PartialIndex("ix_stored_file_requested", "requested_at", "digest", where="requested_at IS NOT NULL"),
    )

    digest: str = Field(primary_key=True, sa_type=sa.String(64), description="SHA-256 in hexadecimal")
    octets: bytes = Field(sa_type=sa.LargeBinary)
    requested_at: datetime | None = Field(
        default=None,
        sa_type=UtcDateTime,
        description="when a requested message last had it as an attachment; NULL: a step uses it, and it is kept",
    )


# The update also locks a row that is there, so that it is not deleted before this transaction commits.
_SAVE_FILE = (
    "INSERT INTO stored_file (digest, octets, requested_at) VALUES (:digest, :octets, :now) "
    "ON CONFLICT (digest) DO UPDATE SET requested_at = CASE "
    "WHEN stored_file.requested_at IS NOT NULL THEN excluded.requested_at END"
)


def save_files(connection: sa.Connection, files: Mapping[str, bytes], *, requested_at: datetime | None = None) -> None:
    """Save files by their digests. A file that is stored already is stored once.

    Args:
        connection: A connection in a transaction that writes.
        files: The content of each, by its digest.
        requested_at: When a requested message has them as attachments. None: a step of a campaign uses them.
    """
    statement = sa.text(_SAVE_FILE).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    for digest in sorted(files):  # In a fixed order, so that two transactions with the same files do not deadlock.
        connection.execute(statement, {"digest": digest, "octets": files[digest], "now": requested_at})


def stored_files(connection: sa.Connection, digests: Collection[str]) -> dict[str, bytes]:
    """Return the stored files of these digests."""
    statement = sa.select(col(StoredFile.digest), col(StoredFile.octets)).where(col(StoredFile.digest).in_(digests))
    return {row.digest: row.octets for row in connection.execute(statement)} if digests else {}
