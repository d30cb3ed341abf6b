"""Put a campaign.yaml into the store: made, or brought up to date as long as nothing of it has been sent."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Session, col, select

from postroad.campaign.audience import open_audience
from postroad.campaign.definition import CampaignFile, read_campaign
from postroad.errors import StateError
from postroad.settings import Settings
from postroad.store.campaign import Campaign, CampaignState, Sender, Step, StepKind
from postroad.store.engine import write


def apply(engine: sa.Engine, settings: Settings, file: CampaignFile, now: datetime) -> Campaign:
    """Make or update a campaign. Raises StateError where a launched one would change, ConfigError for its sender."""
    definition = file.definition
    with write(engine) as connection:
        session = Session(connection, expire_on_commit=False)
        sender_id = apply_sender(session, settings, definition.sender)
        campaign = session.exec(select(Campaign).where(Campaign.name == definition.name)).one_or_none()
        if campaign is None:
            campaign = Campaign(
                name=definition.name,
                audience_id=open_audience(connection, definition.audience.name, now),
                sender_id=sender_id,
                time_zone=definition.time_zone or settings.time_zone,
                created_at=now,
            )
        elif campaign.state is not CampaignState.DRAFT:
            _refuse_changes(session, campaign, file)
            session.flush()
            session.expunge_all()
            return campaign
        campaign.audience_id = open_audience(connection, definition.audience.name, now)
        campaign.sender_id = sender_id
        campaign.audience_file = str(file.audience_file) if file.audience_file else None
        campaign.job_class = definition.job_class
        campaign.time_zone = definition.time_zone or settings.time_zone
        session.add(campaign)
        session.flush()
        assert campaign.id is not None  # noqa: S101  (flushed)
        connection.execute(sa.delete(Step).where(col(Step.campaign_id) == campaign.id))
        for position, step in enumerate(file.steps, start=1):
            session.add(
                Step(
                    campaign_id=campaign.id,
                    position=position,
                    name=step.name,
                    kind=StepKind(step.kind),
                    settings=step.settings,
                )
            )
        session.flush()
        session.expunge_all()
        return campaign


def apply_sender(session: Session, settings: Settings, name: str) -> int:
    """Copy a sender from postroad.toml to its table. Returns its id."""
    wanted = settings.sender(name)
    sender = session.exec(select(Sender).where(Sender.name == name)).one_or_none()
    values = {
        "address": wanted.address,
        "display_name": wanted.name,
        "reply_to": wanted.reply_to,
        "postal_address": wanted.postal_address,
        "route": wanted.route,
        "bounce_domain": wanted.bounce_domain,
    }
    sender = sender.sqlmodel_update(values) if sender is not None else Sender.model_validate({"name": name, **values})
    session.add(sender)
    session.flush()
    assert sender.id is not None  # noqa: S101  (flushed)
    return sender.id


def _refuse_changes(session: Session, campaign: Campaign, file: CampaignFile) -> None:
    steps = session.exec(select(Step).where(Step.campaign_id == campaign.id).order_by(col(Step.position))).all()
    kept = [(step.name, step.kind.value, step.settings) for step in steps]
    if kept != [(step.name, step.kind, step.settings) for step in file.steps]:
        raise StateError(
            f"campaign {campaign.name} was launched, and its steps cannot change: people would get two versions of it",
            where=str(file.path),
            remedy="Give the changed one another name, or take the change back.",
        )


def apply_files(engine: sa.Engine, settings: Settings, now: datetime) -> list[Campaign]:
    """Apply every file that the setting ``campaigns`` names."""
    paths = sorted(path for pattern in settings.campaigns for path in settings.base_dir.glob(pattern))
    return [apply(engine, settings, read_campaign(path), now) for path in paths]
