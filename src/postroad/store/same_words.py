"""Finds refusals that are about the sender: the same words of one receiver to many recipients.

Each bounce whose words do not clearly mean its recipient has a key of its words and its receiver. The ledger counts the
keys, whichever worker read the reply, and whether it was a reply or a returned mail.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final

import sqlalchemy as sa

from postroad.store.bulk import any_of, found_sql, json_rows
from postroad.store.suppression import lift_bounces
from postroad.store.types import UtcDateTime

log = logging.getLogger(__name__)

MANY_RECIPIENTS: Final = 5
"""Number of different recipients from which on the same words are about the sender."""
WINDOW: Final = timedelta(hours=6)
SAME_WORDS: Final = "the same words to many recipients"
_DOUBTED: Final = "('recipient', 'host')"


def words_key(receiver: str, words: str) -> str:
    """Return the key of a refusal: equal for the same words of the same receiver.

    Args:
        receiver: Name of the mailbox provider, the site, or the relay that refused.
        words: Its words, without what differs between recipients.
    """
    return blake2b(f"{receiver}\n{words}".encode("utf-8", "replace"), digest_size=12).hexdigest()


def blame_sender_for(connection: sa.Connection, keys: Collection[str], now: datetime) -> set[str]:
    """Blame the sender for bounces whose words many recipients got within `WINDOW`, and lift their suppressions.

    Args:
        connection: Within a transaction in which the bounces of these keys were inserted.
        keys: Keys of bounces that were recorded now.
        now: Time of the transaction.

    Returns:
        The keys that are about the sender. A bounce with one of them suppresses no address.
    """
    if not keys:
        return set()
    since = now - WINDOW
    found = _blamed_already(connection, keys, since) | _of_many(connection, keys, since)
    if not found:
        return found
    item, parameters = _rows(connection, sorted(found))
    statement = sa.text(
        f"UPDATE delivery_event SET blame = 'sender', cause = :cause "
        f"WHERE words {any_of(connection, f'SELECT asked.words FROM {item}')} "
        f"AND blame IN {_DOUBTED} AND at > :since RETURNING touch_id"
    ).bindparams(sa.bindparam("since", type_=UtcDateTime()))
    values = {"cause": SAME_WORDS, "since": since, **parameters}
    touches = list(connection.execute(statement, values).scalars())
    lifted = lift_bounces(connection, touches, since=since, why=SAME_WORDS, now=now)
    if lifted:
        log.warning("%d recipients are suppressed no longer: one receiver refused many in the same words", lifted)
    return found


_BLAMED = found_sql(
    "delivery_event WHERE delivery_event.words = asked.words AND delivery_event.blame = 'sender' "
    "AND delivery_event.at > :since"
)


def _blamed_already(connection: sa.Connection, keys: Collection[str], since: datetime) -> set[str]:
    item, parameters = _rows(connection, sorted(keys))
    statement = sa.text(f"SELECT asked.words FROM {item} WHERE {_BLAMED}").bindparams(
        sa.bindparam("since", type_=UtcDateTime())
    )
    return set(connection.execute(statement, {"since": since, **parameters}).scalars())


def _of_many(connection: sa.Connection, keys: Collection[str], since: datetime) -> set[str]:
    item, parameters = _rows(connection, sorted(keys))
    statement = sa.text(
        f"SELECT asked.words FROM {item} JOIN delivery_event ON delivery_event.words = asked.words "
        f"AND delivery_event.blame IN {_DOUBTED} AND delivery_event.at > :since "
        "JOIN touch ON touch.id = delivery_event.touch_id "
        "GROUP BY asked.words HAVING count(DISTINCT touch.recipient_id) >= :many"
    ).bindparams(sa.bindparam("since", type_=UtcDateTime()))
    values = {"since": since, "many": MANY_RECIPIENTS, **parameters}
    return set(connection.execute(statement, values).scalars())


def _rows(connection: sa.Connection, keys: Sequence[str]) -> tuple[str, dict[str, str]]:
    return json_rows(connection, "asked", {"words": sa.Text()}, [{"words": key} for key in keys])
