"""The members of an audience at one time, while an import adds others."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa


class MembersBefore(NamedTuple):
    """The members of an audience before the import of a file, at one time.

    While the file is imported, its recipients become members one after the other. A count that reads the file and the
    audience at different times would count them twice, so those whom the import adds are not members here.

    ``newest``: id of the newest import at that time. A later import adds no members. ``unfinished``: ids of the imports
    of the file that had not finished.
    """

    newest: int
    unfinished: tuple[int, ...]

    @property
    def sql(self) -> str:
        """The condition over the row ``audience_member``. It contains numbers only, and needs no parameters."""
        unfinished = ", ".join(map(str, (0, *self.unfinished)))
        return (
            f"(audience_member.joined_import_id IS NULL OR audience_member.joined_import_id <= {self.newest} "
            f"AND audience_member.joined_import_id NOT IN ({unfinished}))"
        )


def members_before(connection: sa.Connection, audience_id: int, sha256: str) -> MembersBefore:
    """Return which members an audience has now without the import of a file.

    Args:
        connection: A connection in a transaction.
        audience_id: The audience.
        sha256: Digest of the file, in hexadecimal.

    Returns:
        The members, as a condition.
    """
    newest = sa.text("SELECT max(id) FROM audience_import WHERE audience_id = :id")
    unfinished = sa.text(
        "SELECT id FROM audience_import WHERE audience_id = :id AND sha256 = :sha256 AND finished_at IS NULL "
        "ORDER BY id"
    )
    # In this order: an import that begins between the statements is a later one.
    last = connection.execute(newest, {"id": audience_id}).scalar() or 0
    ids = connection.execute(unfinished, {"id": audience_id, "sha256": sha256}).scalars()
    return MembersBefore(int(last), tuple(map(int, ids)))
