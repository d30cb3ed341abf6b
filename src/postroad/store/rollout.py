"""Rollouts: the shares of a campaign's audience that are let go one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select

from postroad.store.ledger import TouchState
from postroad.store.recipient import place_sql
from postroad.store.text import storable_text
from postroad.store.types import BIG_ID, StoredRow, UtcDateTime

STEP = 300
"""Touches that one transaction draws or releases."""


class RolloutShare(StoredRow, table=True):
    """One share of the audience of a launched campaign. The first one is opened by the launch.

    ``percent``: of the audience with all shares before, in hundredths of a percent.
    """

    __tablename__ = "rollout_share"
    __table_args__ = (sa.UniqueConstraint("campaign_id", "number"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    campaign_id: int = Field(foreign_key="campaign.id", sa_type=BIG_ID)
    number: int = Field(sa_type=sa.SmallInteger, description="from 1")
    basis_points: int = Field(description="of the audience, with all shares before, in hundredths of a percent")
    people: int = Field(sa_type=sa.BigInteger, description="recipients of this share alone, when it was drawn")
    opened_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    opened_by: str | None = Field(default=None, sa_type=sa.String(200), description="what or who let it go")
    held_since: datetime | None = Field(default=None, sa_type=UtcDateTime)
    held_because: str | None = Field(default=None, sa_type=sa.String(40), description="the kind of reason")
    held_why: str | None = Field(default=None, sa_type=sa.String(500), description="why it is not let go, in words")
    judged: str | None = Field(
        default=None,
        sa_type=sa.String(500),
        description="SHA-256 of the outcomes and settings by which the test held it, to test once",
    )

    @property
    def percent(self) -> str:
        """The percentage in words, such as ``0.5 %``."""
        return f"{self.basis_points / 100:g} %"


def shares_of(connection: sa.Connection, campaign_id: int) -> list[RolloutShare]:
    """Return the shares of a launched campaign in order. It is empty without a rollout, and before the launch."""
    statement = select(RolloutShare).where(RolloutShare.campaign_id == campaign_id).order_by(col(RolloutShare.number))
    session = Session(connection)
    found = list(session.exec(statement))
    session.expunge_all()
    return found


def add_shares(connection: sa.Connection, shares: Sequence[RolloutShare]) -> None:
    """Add the shares of a campaign whose launch ends in this transaction."""
    session = Session(connection)
    session.add_all(shares)
    session.flush()
    session.expunge_all()


def open_share(connection: sa.Connection, share_id: int, *, by: str, now: datetime) -> bool:
    """Let a share go. Returns False, and changes nothing, if it was let go before."""
    statement = (
        sa.update(RolloutShare)
        .where(col(RolloutShare.id) == share_id, col(RolloutShare.opened_at).is_(None))
        .values(
            opened_at=now,
            opened_by=storable_text(by, 200),
            held_since=None,
            held_because=None,
            held_why=None,
            judged=None,
        )
    )
    return connection.execute(statement).rowcount == 1


class ShareHold(NamedTuple):
    """Why a share is not let go. ``judged``: the outcomes that were tested, if a test holds it."""

    because: str
    why: str
    judged: str | None = None


def record_hold(connection: sa.Connection, share: RolloutShare, hold: ShareHold, now: datetime) -> None:
    """Record why a share is not let go. The time stays while the kind of reason is the same."""
    since = share.held_since if share.held_because == hold.because and share.held_since is not None else now
    values = {
        "held_since": since,
        "held_because": hold.because[:40],
        "held_why": hold.why[:500],
        "judged": hold.judged[:500] if hold.judged else None,
    }
    statement = sa.update(RolloutShare).where(col(RolloutShare.id) == share.id, col(RolloutShare.opened_at).is_(None))
    connection.execute(statement.values(**values))


class WithheldTouch(NamedTuple):
    """A withheld touch of a share that was let go, and what its due time depends on."""

    touch_id: int
    share: int
    time_zone: str | None
    country: str | None
    subdivision: str | None


def withheld_touches(connection: sa.Connection, campaign_id: int, until_share: int) -> list[WithheldTouch]:
    """Return the next withheld touches of the shares up to a number, the first share first."""
    statement = sa.text(
        f"SELECT held.id, held.share, recipient.time_zone, {place_sql(connection)} FROM "
        f"(SELECT id, share, recipient_id FROM touch WHERE campaign_id = :campaign_id "
        f"AND state = '{TouchState.WITHHELD}' AND share <= :share ORDER BY share, id LIMIT :limit) AS held "
        "CROSS JOIN recipient WHERE recipient.id = held.recipient_id ORDER BY held.share, held.id"
    )
    values = {"campaign_id": campaign_id, "share": until_share, "limit": STEP}
    return [WithheldTouch(*row) for row in connection.execute(statement, values)]


class DrawableTouch(NamedTuple):
    """A touch of the first email, for the draw of a rollout."""

    touch_id: int
    recipient_id: int
    state: str
    share: int | None


def drawable_touches(connection: sa.Connection, campaign_id: int, step_id: int, after: int) -> list[DrawableTouch]:
    """Return the next touches of a step in order of their recipients. ``after``: the last recipient before."""
    statement = sa.text(
        "SELECT id, recipient_id, state, share FROM touch WHERE campaign_id = :campaign_id AND step_id = :step_id "
        "AND recipient_id > :after ORDER BY recipient_id LIMIT :limit"
    )
    values = {"campaign_id": campaign_id, "step_id": step_id, "after": after, "limit": STEP}
    return [DrawableTouch(*row) for row in connection.execute(statement, values)]
