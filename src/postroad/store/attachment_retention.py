"""Deletes attachments of requested messages that are old and can no longer be sent.

A campaign that programs send by stays open, so its messages are kept. Their attachments are not: a request forgets its
files when its message is final, and a file is deleted when no request names it. The digest of the request stays, so a
repetition is still compared with the whole content. Files of steps are never deleted here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from postroad.store.bulk import any_of, id_rows, json_rows
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.touches.transitions import TRANSITIONS, states_sql
from postroad.store.types import UtcDateTime

STEP: Final = 1_000
"""Requests that one transaction changes. One that deletes files deletes a tenth: each may have megabytes."""


def sendable_states() -> frozenset[TouchState]:
    """Return the states from which a touch may still be sent, by any sequence of transitions."""
    found = {TouchState.SENDING}
    while True:
        before = {state for row in TRANSITIONS if row.target in found for state in row.sources}
        if before <= found:
            return frozenset(found)
        found |= before


def delete_old_attachments(engine: sa.Engine, before: datetime, *, steps: int = 50) -> int:
    """Delete attachments that were last requested before a time. The next call continues.

    Args:
        engine: The database.
        before: The time.
        steps: Maximum number of transactions of each kind.

    Returns:
        The number of deleted files.

    Raises:
        UnavailableError: The database does not answer.
    """
    if not _forget_files(engine, before, steps):
        return 0
    return _delete_files(engine, before, _kept_digests(engine, before), steps)


_OLD_REQUESTS = f"""
SELECT request.id, request.created_at FROM message_request AS request JOIN touch ON touch.id = request.touch_id
WHERE request.files <> '[]' AND request.created_at < :before
AND (request.created_at, request.id) > (:after_at, :after_id)
AND NOT touch.state {states_sql(sendable_states())}
ORDER BY request.created_at, request.id LIMIT :limit
"""
_EMPTY = "UPDATE message_request SET files = '[]' WHERE id {old}"
_TIMES = ("before", "after_at")


def _forget_files(engine: sa.Engine, before: datetime, steps: int) -> bool:
    """Remove the files of old requests whose messages are final. Returns whether that is done for all of them."""
    bound = sa.text(_OLD_REQUESTS).bindparams(*(sa.bindparam(name, type_=UtcDateTime()) for name in _TIMES))
    statement = bound.columns(sa.column("id", sa.Integer()), sa.column("created_at", UtcDateTime()))
    after_at, after_id = datetime.fromtimestamp(0, before.tzinfo), 0
    for _ in range(steps):
        values = {"before": before, "after_at": after_at, "after_id": after_id, "limit": STEP}
        with read(engine) as connection:
            rows = connection.execute(statement, values).all()
        if not rows:
            return True
        after_id, after_at = rows[-1]
        with write(engine) as connection:
            item, parameters = id_rows(connection, [row.id for row in rows], "old")
            old = any_of(connection, f"SELECT old.id FROM {item}")
            connection.execute(sa.text(_EMPTY.format(old=old)), parameters)
    return False


def _kept_digests(engine: sa.Engine, before: datetime) -> set[str]:
    """Return the files of old requests whose messages may still be sent."""
    statement = (
        sa.text("SELECT files FROM message_request WHERE files <> '[]' AND created_at < :before")
        .bindparams(sa.bindparam("before", type_=UtcDateTime()))
        .columns(sa.column("files", sa.JSON()))
    )
    with read(engine) as connection:
        return {file["digest"] for row in connection.execute(statement, {"before": before}) for file in row.files}


_OLD_FILES = """
SELECT digest, requested_at FROM stored_file
WHERE requested_at < :before AND (requested_at, digest) > (:after_at, :after_digest)
ORDER BY requested_at, digest LIMIT :limit
"""
_DELETE = "DELETE FROM stored_file WHERE digest {old} AND requested_at < :before"


def _delete_files(engine: sa.Engine, before: datetime, kept: set[str], steps: int) -> int:
    bound = sa.text(_OLD_FILES).bindparams(*(sa.bindparam(name, type_=UtcDateTime()) for name in _TIMES))
    statement = bound.columns(sa.column("digest", sa.Text()), sa.column("requested_at", UtcDateTime()))
    after_at, after_digest, deleted = datetime.fromtimestamp(0, before.tzinfo), "", 0
    for _ in range(steps):
        values = {"before": before, "after_at": after_at, "after_digest": after_digest, "limit": STEP // 10}
        with read(engine) as connection:
            rows = connection.execute(statement, values).all()
        if not rows:
            break
        after_digest, after_at = rows[-1]
        old_rows: list[dict[str, Any]] = [{"digest": row.digest} for row in rows if row.digest not in kept]
        if not old_rows:
            continue
        with write(engine) as connection:
            item, parameters = json_rows(connection, "old", {"digest": sa.Text()}, old_rows)
            old = any_of(connection, f"SELECT old.digest FROM {item}")
            delete = sa.text(_DELETE.format(old=old)).bindparams(sa.bindparam("before", type_=UtcDateTime()))
            deleted += connection.execute(delete, {**parameters, "before": before}).rowcount
    return deleted
