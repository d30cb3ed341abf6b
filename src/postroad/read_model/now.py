"""Whether mail flows: what is due, what is in the queue, what leaves, and what a person has to decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from msgspec import Struct

from postroad.read_model.undecided import CauseCount, undecided_counts
from postroad.store.campaign import CampaignState
from postroad.store.ledger import IN_PROGRESS, TouchState
from postroad.store.touches.transitions import states_sql
from postroad.store.traffic import MinuteTraffic, traffic_by_minute
from postroad.store.types import UtcDateTime

CAP: Final = 1_000
"""Due messages are counted up to this number."""


class CappedCount(Struct, frozen=True, kw_only=True):
    """A number of rows. ``capped``: there are at least so many, and the others were not counted."""

    number: int
    capped: bool = False


class NowFigures(Struct, frozen=True, kw_only=True):
    """What the ledger has of mail that is under way, of running and paused campaigns.

    ``due``: planned messages of running campaigns whose time has come, which are not in the queue yet, and
    ``oldest_due_at`` the time of the first of them. ``leaving``: being sent. ``undecided``: dead and unknown ones.
    """

    due: CappedCount
    oldest_due_at: datetime | None
    queued: int
    deferred: int
    leaving: int
    undecided: Sequence[CauseCount]

    @property
    def dead(self) -> int:
        return sum(count.touches for count in self.undecided if count.state is TouchState.DEAD)

    @property
    def unknown(self) -> int:
        return sum(count.touches for count in self.undecided if count.state is TouchState.UNKNOWN)


def now_figures(connection: sa.Connection, now: datetime) -> NowFigures:
    """Return what is under way now."""
    due, oldest = _due(connection, now)
    counts = _in_progress(connection)
    return NowFigures(
        due=due,
        oldest_due_at=oldest,
        queued=counts[TouchState.QUEUED],
        deferred=counts[TouchState.DEFERRED],
        leaving=counts[TouchState.SENDING],
        undecided=undecided_counts(connection),
    )


def accepted_per_minute(connection: sa.Connection, now: datetime, *, hours: int = 24) -> list[MinuteTraffic]:
    """Return the outcomes of each minute of the last hours, in order; minutes without any are missing.

    Args:
        connection: A connection in a transaction.
        now: The time.
        hours: How far back, at most 48.

    Raises:
        ValueError: The minutes of so many hours are not kept.
    """
    if not 0 < hours <= 48:
        raise ValueError(f"the minutes of the last {hours} hours are not kept")
    return traffic_by_minute(connection, now - timedelta(hours=hours))


_DUE_TOUCHES = (
    f"FROM touch WHERE touch.campaign_id = campaign.id AND touch.state = '{TouchState.PLANNED}' "
    "AND touch.due_at <= :now ORDER BY touch.due_at, touch.id"
)
_DUE = (
    sa.text(
        f"SELECT (SELECT count(*) FROM (SELECT 1 {_DUE_TOUCHES} LIMIT :cap) AS due) AS n, "
        f"(SELECT touch.due_at {_DUE_TOUCHES} LIMIT 1) AS oldest "
        f"FROM campaign WHERE campaign.state = '{CampaignState.RUNNING}'"
    )
    .bindparams(sa.bindparam("now", type_=UtcDateTime()))
    .columns(sa.column("n", sa.Integer()), sa.column("oldest", UtcDateTime()))
)


def _due(connection: sa.Connection, now: datetime) -> tuple[CappedCount, datetime | None]:
    rows = connection.execute(_DUE, {"now": now, "cap": CAP}).all()
    number = sum(row.n for row in rows)
    oldest = min((row.oldest for row in rows if row.oldest is not None), default=None)
    return CappedCount(number=min(number, CAP), capped=number >= CAP), oldest


def _in_progress(connection: sa.Connection) -> Counter[TouchState]:
    statement = sa.text(
        "SELECT touch_count.state, sum(touch_count.touches) AS n FROM campaign "
        "JOIN step ON step.campaign_id = campaign.id JOIN touch_count ON touch_count.step_id = step.id "
        f"AND touch_count.state {states_sql(IN_PROGRESS)} "
        f"WHERE campaign.state IN ('{CampaignState.RUNNING}', '{CampaignState.PAUSED}') GROUP BY touch_count.state"
    )
    return Counter({TouchState(row.state): int(row.n) for row in connection.execute(statement)})
