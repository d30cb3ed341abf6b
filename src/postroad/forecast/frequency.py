"""Frequency caps in a forecast: from what was sent, and for emails of the campaign that follow each other.

What other campaigns send meanwhile is not known, and does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from postroad.forecast.following import Following, NextEmail
from postroad.settings.frequency import IGNORE, NORMAL
from postroad.settings.types import RateSetting
from postroad.store.bulk import any_of, id_rows
from postroad.store.campaign import Campaign
from postroad.store.ledger import TouchState
from postroad.store.touches.transitions import states_sql

BUCKET_S = 600
"""Times of the ledger are read to this many seconds."""

_COUNTED = states_sql((TouchState.ACCEPTED, TouchState.UNKNOWN))


class ForecastCap(NamedTuple):
    """The frequency cap of a campaign whose messages wait for it."""

    messages: int
    per_s: float

    @classmethod
    def of(cls, caps: Mapping[str, RateSetting], campaign: Campaign) -> ForecastCap | None:
        """Return the cap of a campaign. None: no cap holds its messages, or those over it are skipped."""
        name = campaign.frequency or NORMAL
        if name == IGNORE or name not in caps or campaign.frequency_skip:
            return None
        return cls(caps[name].count, caps[name].per_ms / 1000)

    def held_recipients(self, connection: sa.Connection, recipient_ids: Sequence[int]) -> dict[int, float]:
        """Return the time, in seconds since the epoch, before which the cap lets no message to each recipient leave."""
        item, parameters = id_rows(connection, recipient_ids)
        ids = any_of(connection, f"SELECT batch.id FROM {item}")
        held = self.held_until(connection, "recipient.id")
        statement = sa.text(f"SELECT recipient.id, {held} AS held FROM recipient WHERE recipient.id {ids}")
        return {id_: float(until) for id_, until in connection.execute(statement, parameters)}

    def held_until(self, connection: sa.Connection, recipient: str) -> str:
        """Return the SQL of the time, in seconds since the epoch, before which the cap lets no message leave; 0: none.

        Args:
            connection: A connection of the database.
            recipient: SQL of the id of the recipient.
        """
        nth = (
            "(SELECT other.settled_at FROM touch AS other JOIN campaign AS its ON its.id = other.campaign_id "
            f"WHERE other.recipient_id = {recipient} AND other.settled_at IS NOT NULL AND other.state {_COUNTED} "
            f"AND (its.frequency IS NULL OR its.frequency <> '{IGNORE}') "
            f"ORDER BY other.settled_at DESC LIMIT 1 OFFSET {self.messages - 1})"
        )
        return f"COALESCE({bucket(connection, nth)} + {round(self.per_s) + BUCKET_S}, 0)"


def bucket(connection: sa.Connection, expression: str) -> str:
    """Return the SQL of a time, rounded down to `BUCKET_S`, in seconds since the epoch."""
    if connection.dialect.name == "sqlite":
        return f"CAST(strftime('%s', {expression}) AS INTEGER) / {BUCKET_S} * {BUCKET_S}"
    return f"floor(extract(epoch FROM {expression}) / {BUCKET_S})::bigint * {BUCKET_S}"


class CappedFollowing:
    """The emails that follow each other, held by a cap of one message in a span.

    With a larger cap, which of the earlier emails of a recipient counts is not known.
    """

    def __init__(self, following: Following, cap: ForecastCap | None) -> None:
        self._following = following
        self._span_s = cap.per_s if cap is not None and cap.messages == 1 else 0.0

    @property
    def names(self) -> Mapping[int, str]:
        return self._following.names

    def first(self, now: float, zone: str) -> Sequence[NextEmail]:
        return self._following.first(now, zone)

    def after(self, step_id: int, sent: float, due: float, zone: str) -> Sequence[NextEmail]:
        earliest = sent + self._span_s
        return [
            email._replace(due=max(email.due, earliest)) for email in self._following.after(step_id, sent, due, zone)
        ]
