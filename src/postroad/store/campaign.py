"""Campaigns, their senders and their steps."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select

from postroad.errors import StateError, unknown_name
from postroad.store.types import BIG_ID, JSON_OBJECT, JSON_OR_NULL, PartialIndex, StoredRow, StrEnumType, UtcDateTime


class CampaignState(StrEnum):
    """The state of a campaign. Only a running campaign sends."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class StepKind(StrEnum):
    """The kind of a step."""

    EMAIL = "email"
    WAIT = "wait"
    WAIT_UNTIL = "wait-until"
    IF = "if"


class OnReply(StrEnum):
    """What a recipient's reply does to the rest of the sequence."""

    STOP = "stop"
    CONTINUE = "continue"


class Sender(StoredRow, table=True):
    """A sender, as postroad.toml defined it when one of its campaigns was last applied."""

    __tablename__ = "sender"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    name: str = Field(sa_type=sa.String(100), unique=True)
    address: str = Field(sa_type=sa.String(320))
    display_name: str = Field(sa_type=sa.String(200))
    reply_to: str | None = Field(default=None, sa_type=sa.String(320))
    postal_address: str = Field(sa_type=sa.Text)
    route: str = Field(sa_type=sa.String(100))
    bounce_domain: str | None = Field(default=None, sa_type=sa.String(255))


class Campaign(StoredRow, table=True):
    """A sequence of steps for one audience from one sender."""

    __tablename__ = "campaign"
    __table_args__ = (PartialIndex("ix_campaign_listed", "state", "id", where="NOT warmup"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    name: str = Field(sa_type=sa.String(100), unique=True)
    state: CampaignState = Field(default=CampaignState.DRAFT, sa_type=StrEnumType(CampaignState))
    audience_id: int = Field(foreign_key="audience.id", sa_type=BIG_ID)
    sender_id: int = Field(foreign_key="sender.id", sa_type=BIG_ID)
    audience_file: str | None = Field(default=None, sa_type=sa.Text, description="CSV that fills the audience")
    segment: dict[str, Any] | None = Field(
        default=None, sa_type=JSON_OBJECT, nullable=True, description="condition on the audience; NULL: all members"
    )
    job_class: str = Field(default="normal", sa_type=sa.String(16), description="class of its jobs on the queue")
    time_zone: str = Field(sa_type=sa.String(64), description="zone of recipients whose own zone is not known")
    sending_window: dict[str, Any] | None = Field(
        default=None, sa_type=JSON_OBJECT, nullable=True, description="hours in the recipient's zone; NULL: any"
    )
    on_reply: OnReply = Field(
        default=OnReply.STOP, sa_type=StrEnumType(OnReply), sa_column_kwargs={"server_default": sa.text("'stop'")}
    )
    warmup: bool = Field(
        default=False,
        sa_column_kwargs={"server_default": sa.false()},
        description="one day's mail to the seed list of a warmup, which has a queue of its own",
    )
    transactional: bool = Field(
        default=False,
        sa_column_kwargs={"server_default": sa.false()},
        description="a program may request messages of it that are sent to recipients who unsubscribed, too",
    )
    frequency: str | None = Field(
        default=None,
        sa_type=sa.String(100),
        description="class of its frequency cap, or `ignore`; NULL: `normal` if the settings have that class",
    )
    frequency_skip: bool = Field(
        default=False,
        sa_column_kwargs={"server_default": sa.false()},
        description="a touch over the cap is skipped; false: it waits",
    )
    overflow: dict[str, Any] | None = Field(
        default=None,
        sa_type=JSON_OBJECT,
        nullable=True,
        description="senders that take what its own sender cannot carry",
    )
    journey: dict[str, Any] | None = Field(
        default=None,
        sa_type=JSON_OR_NULL,
        nullable=True,
        description="entry, exit and goal, if it has enrolments; NULL: its touches are its enrolments",
    )
    entry_cursor: dict[str, Any] | None = Field(
        default=None, sa_type=JSON_OR_NULL, nullable=True, description="how far its entry was read"
    )
    entry_closed_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="since when no more recipients enter"
    )
    goal_cursor: int = Field(
        default=0,
        sa_type=sa.BigInteger,
        sa_column_kwargs={"server_default": sa.text("0")},
        description="the last recipient of whom the goal was looked at",
    )
    revision: int = Field(
        default=0,
        sa_column_kwargs={"server_default": sa.text("0")},
        description="how often its steps changed after the launch",
    )
    extended: dict[str, Any] | None = Field(
        default=None,
        sa_type=JSON_OR_NULL,
        nullable=True,
        description="emails that were the last ones until steps were added, whose touches are still to get a follow-up",
    )
    corrects: dict[str, Any] | None = Field(
        default=None,
        sa_type=JSON_OR_NULL,
        nullable=True,
        description="the campaign that it corrects, and which of its recipients get it",
    )
    permission_audience_id: int | None = Field(
        default=None,
        sa_type=sa.BigInteger,
        description="audience whose suppressions hold, if it is not its own: that of the campaign that it corrects",
    )
    approval_above: int | None = Field(
        default=None,
        sa_type=sa.BigInteger,
        description="a launch to more people needs an approval; NULL: the settings decide alone",
    )
    rollout: dict[str, Any] | None = Field(
        default=None,
        sa_type=JSON_OR_NULL,
        nullable=True,
        description="shares in which the audience is let go, in hundredths of a percent; NULL: at once",
    )
    freezing_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="when the unfinished launch began"
    )
    suppressions_seen: int = Field(
        default=0,
        sa_type=sa.BigInteger,
        sa_column_kwargs={"server_default": sa.text("0")},
        description="number of the last suppression that was applied to its waiting touches",
    )
    created_at: datetime = Field(sa_type=UtcDateTime)
    launched_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="when the audience was frozen")
    finished_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="when it finished or was cancelled"
    )
    emptied_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="when its touches were deleted, after their retention"
    )
    paused_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    paused_by: str | None = Field(default=None, sa_type=sa.Text, description="who paused it, as text")
    paused_run_id: str | None = Field(
        default=None, sa_type=sa.String(36), description="the Prefect run whose cancellation or suspension paused it"
    )
    launch_failed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    launch_error: str | None = Field(default=None, sa_type=sa.Text, description="why the last launch failed")


class Step(StoredRow, table=True):
    """One step of a campaign. Its settings depend on its kind: a new kind needs no new table."""

    __tablename__ = "step"
    __table_args__ = (sa.UniqueConstraint("campaign_id", "position"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    campaign_id: int = Field(foreign_key="campaign.id", sa_type=BIG_ID)
    position: int
    name: str = Field(sa_type=sa.String(100))
    kind: StepKind = Field(sa_type=StrEnumType(StepKind))
    settings: dict[str, Any] = Field(sa_type=JSON_OBJECT, nullable=False)
    recalled_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="when it was recalled; from then on it is sent to no recipient"
    )
    version: int = Field(
        default=1,
        sa_column_kwargs={"server_default": sa.text("1")},
        description="number of its settings; `step_version` has the earlier ones",
    )


class StepVersion(StoredRow, table=True):
    """Settings that a step had before they changed while its campaign ran."""

    __tablename__ = "step_version"

    step_id: int = Field(
        primary_key=True, foreign_key="step.id", sa_type=BIG_ID, sa_column_kwargs={"autoincrement": False}
    )
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    settings: dict[str, Any] = Field(sa_type=JSON_OBJECT, nullable=False)
    replaced_at: datetime = Field(sa_type=UtcDateTime)


def find_campaign(connection: sa.Connection, name: str, *, for_update: bool = False) -> Campaign:
    """Return the campaign of a name.

    Args:
        connection: A connection in a transaction.
        name: The name.
        for_update: Lock the row until the transaction ends. On SQLite only one transaction writes at a time.

    Returns:
        The campaign, detached from the connection.

    Raises:
        StateError: No campaign has this name.
    """
    session = Session(connection)
    statement = select(Campaign).where(Campaign.name == name)
    campaign = session.exec(statement.with_for_update() if for_update else statement).one_or_none()
    if campaign is None:
        error = unknown_name("campaign", name, campaign_names(connection), listed_by="postroad campaign status")
        remedy = f"{error.remedy} `postroad campaign apply FILE` makes one from its campaign.yaml."
        raise StateError(error.message, remedy=remedy, missing=True)
    session.expunge_all()
    return campaign


def lock_campaign(connection: sa.Connection, campaign_id: int) -> tuple[CampaignState, int]:
    """Lock the row of a campaign until the transaction ends, as `find_campaign` does. Return its state and revision."""
    lock = "" if connection.dialect.name == "sqlite" else "FOR UPDATE"
    statement = sa.text(f"SELECT state, revision FROM campaign WHERE id = :id {lock}")
    row = connection.execute(statement, {"id": campaign_id}).one()
    return CampaignState(row.state), row.revision


def campaign_names(connection: sa.Connection) -> list[str]:
    """Return the names of all campaigns, sorted."""
    return list(Session(connection).exec(select(Campaign.name).order_by(Campaign.name)))


def set_state(connection: sa.Connection, campaign_id: int, state: CampaignState) -> None:
    """Set the state of a campaign, and clear its pause."""
    values = {"state": state, "paused_at": None, "paused_by": None, "paused_run_id": None}
    connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign_id).values(**values))


def set_goal_cursor(connection: sa.Connection, campaign_id: int, recipient_id: int) -> None:
    """Record the last recipient of whom the goal of a campaign was looked at; 0: the next pass begins again."""
    connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign_id).values(goal_cursor=recipient_id))


def set_entry_cursor(connection: sa.Connection, campaign_id: int, cursor: dict[str, Any]) -> None:
    """Record how far the entry of a campaign was read."""
    connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign_id).values(entry_cursor=cursor))


def close_entry(connection: sa.Connection, campaign_id: int, now: datetime) -> None:
    """Record that no more recipients enter a campaign."""
    connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign_id).values(entry_closed_at=now))


def record_pause(connection: sa.Connection, campaign_id: int, *, by: str, run_id: str | None, now: datetime) -> None:
    """Pause a campaign, and record who did it. ``run_id``: the Prefect run that was stopped, if one was."""
    values = {"state": CampaignState.PAUSED, "paused_at": now, "paused_by": by, "paused_run_id": run_id}
    connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign_id).values(**values))


def record_launch_error(connection: sa.Connection, name: str, error: str, now: datetime) -> None:
    """Record why a campaign could not be launched, if the campaign exists."""
    values = {"launch_failed_at": now, "launch_error": error}
    connection.execute(sa.update(Campaign).where(col(Campaign.name) == name).values(**values))


def clear_launch_error(connection: sa.Connection, name: str) -> None:
    """Clear the error of the last launch."""
    values = {"launch_failed_at": None, "launch_error": None}
    connection.execute(sa.update(Campaign).where(col(Campaign.name) == name).values(**values))


def set_extended(connection: sa.Connection, campaign_id: int, extended: dict[str, Any] | None) -> None:
    """Record the emails of a campaign whose touches are still to get a follow-up."""
    connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign_id).values(extended=extended))


def sender_addresses(connection: sa.Connection) -> list[tuple[str, str | None]]:
    """Return each sender's address and its address for replies."""
    statement = select(Sender.address, Sender.reply_to)
    return [(address, reply_to) for address, reply_to in Session(connection).exec(statement)]


def steps_of(connection: sa.Connection, campaign_id: int) -> list[Step]:
    """Return the steps of a campaign of every kind, in order."""
    session = Session(connection)
    steps = list(session.exec(select(Step).where(Step.campaign_id == campaign_id).order_by(col(Step.position))))
    session.expunge_all()
    return steps


def step_settings(connection: sa.Connection, step: Step, version: int) -> dict[str, Any]:
    """Return the settings that a step has, or had in an earlier version; those it has if there is no such version."""
    if version == step.version:
        return step.settings
    statement = sa.select(col(StepVersion.settings)).where(
        col(StepVersion.step_id) == step.id, col(StepVersion.version) == version
    )
    found: dict[str, Any] | None = connection.execute(statement).scalar_one_or_none()
    return found if found is not None else step.settings
