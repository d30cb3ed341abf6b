"""Approvals: requests to launch a campaign, who decided them, and the launch that used them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select

from postroad.store.text import storable_text
from postroad.store.types import BIG_ID, PartialIndex, StoredRow, StrEnumType, UtcDateTime

NAME_LENGTH = 200
REASON_LENGTH = 1_000


class ApprovalState(StrEnum):
    """The state of a request."""

    OPEN = "open"
    APPROVED = "approved"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    """Its campaign changed, its run ended, or it was not decided in time."""


class Approval(StoredRow, table=True):
    """One request to launch a campaign, and its decision. A campaign has at most one that is open or unused."""

    __tablename__ = "approval"
    __table_args__ = (
        PartialIndex(
            "ux_approval_pending",
            "campaign_id",
            unique=True,
            where="state IN ('open', 'approved') AND used_at IS NULL",
        ),
        sa.Index("ix_approval_campaign", "campaign_id", "id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    campaign_id: int = Field(foreign_key="campaign.id", sa_type=BIG_ID)
    state: ApprovalState = Field(sa_type=StrEnumType(ApprovalState))
    digest: str = Field(sa_type=sa.String(64), description="SHA-256 of the campaign that is to be launched")
    people: int | None = Field(
        default=None, sa_type=sa.BigInteger, description="recipients when it was requested; NULL: not known"
    )
    summary: str = Field(sa_type=sa.Text, description="what the person who decides is shown")
    requested_at: datetime = Field(sa_type=UtcDateTime)
    requested_by: str = Field(sa_type=sa.String(NAME_LENGTH))
    expires_at: datetime = Field(sa_type=UtcDateTime)
    run_id: str | None = Field(default=None, sa_type=sa.String(36), description="the Prefect run that waits for it")
    decided_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    decided_by: str | None = Field(default=None, sa_type=sa.String(NAME_LENGTH), description="the name as it was given")
    decided_from: str | None = Field(
        default=None, sa_type=sa.String(NAME_LENGTH), description="where it was decided: a form, a user of a host"
    )
    reason: str | None = Field(default=None, sa_type=sa.String(REASON_LENGTH))
    used_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="when the launch began")

    @property
    def pending(self) -> bool:
        """Whether it is open, or approved and not used."""
        return self.state in (ApprovalState.OPEN, ApprovalState.APPROVED) and self.used_at is None

    def expired(self, now: datetime) -> bool:
        """Whether it is pending, and its time is over."""
        return self.pending and self.expires_at <= now


class NamedApproval(NamedTuple):
    """A request, and the name of its campaign."""

    campaign: str
    approval: Approval


class ApprovalDecision(NamedTuple):
    """The decision of a person. ``source``: where it was made."""

    state: ApprovalState
    by: str
    source: str
    reason: str | None
    at: datetime


def last_approval(connection: sa.Connection, campaign_id: int) -> Approval | None:
    """Return the newest request of a campaign."""
    statement = select(Approval).where(Approval.campaign_id == campaign_id).order_by(col(Approval.id).desc()).limit(1)
    session = Session(connection)
    found = session.exec(statement).one_or_none()
    session.expunge_all()
    return found


def count_open_approvals(connection: sa.Connection, now: datetime) -> int:
    """Return the number of requests that wait for a decision, without those that have expired."""
    waits = sa.and_(col(Approval.state) == ApprovalState.OPEN, col(Approval.used_at).is_(None))
    statement = sa.select(sa.func.count()).select_from(Approval).where(waits, col(Approval.expires_at) > now)
    return int(connection.execute(statement).scalar_one())


def list_approvals(
    connection: sa.Connection, campaign: str | None, limit: int, *, before: int | None = None
) -> list[NamedApproval]:
    """Return requests, the newest first. ``campaign``: of this campaign only. ``before``: those with a smaller id."""
    names = sa.text("SELECT id, name FROM campaign WHERE id IN :ids").bindparams(sa.bindparam("ids", expanding=True))
    statement = select(Approval).order_by(col(Approval.id).desc()).limit(limit)
    if campaign is not None:
        own = sa.text("SELECT id FROM campaign WHERE name = :name")
        campaign_id = connection.execute(own, {"name": campaign}).scalar()
        statement = statement.where(col(Approval.campaign_id) == campaign_id)
    if before is not None:
        statement = statement.where(col(Approval.id) < before)
    session = Session(connection)
    found = list(session.exec(statement))
    session.expunge_all()
    ids = {approval.campaign_id for approval in found}
    by_id = {row.id: row.name for row in connection.execute(names, {"ids": sorted(ids)})} if ids else {}
    return [NamedApproval(by_id[approval.campaign_id], approval) for approval in found]


def add_approval(connection: sa.Connection, approval: Approval) -> Approval:
    """Add a request, and return it with its id. The row of its campaign is locked."""
    session = Session(connection, expire_on_commit=False)
    session.add(approval)
    session.flush()
    session.expunge_all()
    return approval


def take_over(connection: sa.Connection, approval_id: int, *, run_id: str | None, by: str) -> None:
    """Record that another run waits for an open request, and who started that run."""
    values = {"run_id": run_id, "requested_by": by[:NAME_LENGTH]}
    connection.execute(sa.update(Approval).where(col(Approval.id) == approval_id).values(**values))


def decide(connection: sa.Connection, approval_id: int, decision: ApprovalDecision) -> None:
    """Record the decision of a pending request."""
    values = {
        "state": decision.state,
        "decided_at": decision.at,
        "decided_by": decision.by[:NAME_LENGTH],
        "decided_from": decision.source[:NAME_LENGTH],
        "reason": storable_text(decision.reason, REASON_LENGTH) if decision.reason else None,
    }
    connection.execute(_pending(approval_id).values(**values))


def withdraw(connection: sa.Connection, approval_id: int, why: str, now: datetime) -> None:
    """Withdraw a pending request: it allows no launch any more."""
    values = {"state": ApprovalState.WITHDRAWN, "decided_at": now, "reason": why[:REASON_LENGTH]}
    connection.execute(_pending(approval_id).values(**values))


def use(connection: sa.Connection, approval_id: int, now: datetime) -> None:
    """Record that a launch uses an approval."""
    connection.execute(_pending(approval_id).values(used_at=now))


def _pending(approval_id: int) -> sa.Update:
    pending: Sequence[ApprovalState] = (ApprovalState.OPEN, ApprovalState.APPROVED)
    return sa.update(Approval).where(
        col(Approval.id) == approval_id, col(Approval.state).in_(pending), col(Approval.used_at).is_(None)
    )
