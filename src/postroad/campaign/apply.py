"""Applies a campaign.yaml: creates the campaign in the database, or updates it until it is launched."""

from __future__ import annotations

from datetime import datetime
from glob import glob, has_magic
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlmodel import Session, col, select

from postroad.campaign.apply_running import change_steps
from postroad.campaign.approval import reject_unapproved_change
from postroad.campaign.audience import open_audience
from postroad.campaign.calendar import Window, require_open_day
from postroad.campaign.correction import Correction, correction_row, prepare_correction
from postroad.campaign.definition import CampaignDefinition, CampaignFile, read_campaign
from postroad.campaign.file_access import read_named
from postroad.campaign.holidays import HolidayCalendar
from postroad.campaign.segment_fields import known_fields, parse_segment
from postroad.errors import ConfigError, StateError, did_you_mean, near_names, unknown_name
from postroad.segment.tree import date_from_json, from_json, to_json
from postroad.settings import Settings
from postroad.settings.frequency import IGNORE
from postroad.store.campaign import Campaign, CampaignState, Sender, Step
from postroad.store.engine import read, write
from postroad.store.recipient import Audience
from postroad.store.stored_file import save_files


def apply(
    engine: sa.Engine, settings: Settings, file: CampaignFile, now: datetime, *, warmup: bool = False
) -> Campaign:
    """Create or update a campaign. The steps of a launched one change only where no recipient is hurt.

    Args:
        engine: Database of the campaigns.
        settings: The settings with the senders.
        file: The campaign.yaml with the files that it names.
        now: The time.
        warmup: The campaign is the seed mail of a day.

    Returns:
        The stored campaign.

    Raises:
        StateError: The campaign is launched, and a change would hurt recipients.
        ConfigError: A sender is not in postroad.toml, the audience's file cannot be read, or the condition on the
            audience is not valid.
    """
    definition = file.definition
    correction = _prepare_correction(engine, file, now)
    segment = _segment_row(engine, settings, file)  # Parsing takes longer than a transaction that writes should.
    with write(engine) as connection:
        session = Session(connection, expire_on_commit=False)
        if connection.dialect.name == "postgresql":  # Serialize applies. Readers of the table do not wait.
            connection.execute(sa.text("LOCK TABLE sender IN SHARE ROW EXCLUSIVE MODE"))
        sender_id = apply_sender(session, settings, definition.sender)
        overflow = _overflow_row(session, settings, definition)
        # For update: waits for a launch in progress, after which the campaign is not a draft.
        by_name = select(Campaign).where(Campaign.name == definition.name).with_for_update()
        campaign = session.exec(by_name).one_or_none()
        if campaign is not None and (campaign.state is not CampaignState.DRAFT or campaign.freezing_at is not None):
            _reject_changes(session, campaign, file, sender_id, overflow)
            _change_steps(connection, campaign, file, now)
            _set_policy(campaign, definition)  # It does not change what recipients get.
            return _save(session, campaign)
        _require_open_day(settings, file, now)
        if file.audience_file is not None:  # Checked for drafts only: after the launch the file may be deleted.
            read_named(file.audience_file, None, 0, where=f"{file.path}, audience.file")
        zone = definition.time_zone or settings.time_zone
        audience_id = open_audience(connection, definition.audience_name, now)
        if campaign is None:
            campaign = Campaign(
                name=definition.name, audience_id=audience_id, sender_id=sender_id, time_zone=zone, created_at=now
            )
            campaign.warmup = warmup
        campaign.audience_id = audience_id
        _set_correction(campaign, correction)
        campaign.sender_id, campaign.overflow = sender_id, overflow
        campaign.audience_file = str(file.audience_file) if file.audience_file else None
        campaign.segment, campaign.job_class, campaign.time_zone = segment, definition.job_class, zone
        campaign.sending_window, campaign.transactional = definition.window_row, definition.transactional
        _set_launch(campaign, definition)
        _set_policy(campaign, definition)
        _replace_steps(session, campaign, file)
        return _save(session, campaign)


def _change_steps(connection: sa.Connection, campaign: Campaign, file: CampaignFile, now: datetime) -> None:
    revision, where = campaign.revision, str(file.path)
    change_steps(connection, campaign, file.steps, now, where=where)
    if campaign.revision != revision:
        reject_unapproved_change(connection, campaign, where=where)


def _set_launch(campaign: Campaign, definition: CampaignDefinition) -> None:
    """Set how the campaign is launched: in which shares, and whether a person has to approve it."""
    campaign.rollout = definition.rollout.to_row() if definition.rollout is not None else None
    campaign.approval_above = definition.approval.above if definition.approval is not None else None


def _set_correction(campaign: Campaign, correction: Correction | None) -> None:
    campaign.corrects = correction.row if correction is not None else None
    campaign.permission_audience_id = correction.audience_id if correction is not None else None


def _prepare_correction(engine: sa.Engine, file: CampaignFile, now: datetime) -> Correction | None:
    """Fill the audience of a correction that is not launched; None for another campaign."""
    definition = file.definition
    if definition.corrects is None:
        return None
    launched = sa.text("SELECT 1 FROM campaign WHERE name = :name AND (state <> 'draft' OR freezing_at IS NOT NULL)")
    with read(engine) as connection:
        if connection.execute(launched, {"name": definition.name}).first() is not None:
            return None
    return prepare_correction(engine, definition.name, definition.corrects, now, where=str(file.path))


def _require_open_day(settings: Settings, file: CampaignFile, now: datetime) -> None:
    window = Window.from_row(file.definition.window_row, HolidayCalendar(settings.calendar))
    if window is not None:
        zone = ZoneInfo(file.definition.time_zone or settings.time_zone)
        require_open_day(window, zone, now, where=f"{file.path}, holidays")


def _set_policy(campaign: Campaign, definition: CampaignDefinition) -> None:
    """Set the fields that may change after the launch."""
    campaign.on_reply = definition.on_reply
    frequency = definition.frequency
    campaign.frequency = IGNORE if campaign.warmup else (frequency.name if frequency is not None else None)
    campaign.frequency_skip = frequency is not None and frequency.when_over == "skip"


def _save(session: Session, campaign: Campaign) -> Campaign:
    session.add(campaign)
    session.flush()
    session.expunge_all()
    return campaign


def _replace_steps(session: Session, campaign: Campaign, file: CampaignFile) -> None:
    connection = session.connection()
    campaign.journey = file.journey
    session.add(campaign)
    session.flush()
    assert campaign.id is not None  # noqa: S101  (flushed)
    connection.execute(sa.delete(Step).where(col(Step.campaign_id) == campaign.id))
    for position, step in enumerate(file.steps, start=1):
        save_files(connection, step.files)
        session.add(
            Step(
                campaign_id=campaign.id,
                position=position,
                name=step.name,
                kind=step.kind,
                settings=step.settings,
            )
        )
    session.flush()


def warn_of_new_audience(engine: sa.Engine, file: CampaignFile) -> str | None:
    """Return a warning if an apply would create an empty audience, for example because its name is misspelled.

    Args:
        engine: Database of the audiences.
        file: The campaign.yaml. It must not be applied yet.

    Returns:
        The warning, or None.
    """
    name = file.definition.audience_name
    with read(engine) as connection:
        known = list(connection.execute(sa.text("SELECT name FROM audience")).scalars())
    if name in known or file.audience_file is not None or file.definition.corrects is not None:
        return None
    error = unknown_name("audience", name, known)
    hint = f" {error.remedy}" if error.remedy and known else ""
    return f"campaign {file.definition.name}: {error.message}, so an empty one is created.{hint}"


def warn_of_unknown_fields(engine: sa.Engine, settings: Settings, file: CampaignFile) -> list[str]:
    """Return a warning for each field of a journey's conditions that no recipient has, such as a misspelled one.

    Args:
        engine: Database of the audiences.
        settings: The settings with the declared fields.
        file: The campaign.yaml.

    Returns:
        The warnings; none while the audience has no recipients.
    """
    audience = file.definition.audience_name
    with read(engine) as connection:
        known = known_fields(connection, audience, settings.field_types(audience), file.audience_file)
    places = [(name, (file.journey or {}).get(name), from_json) for name in ("exit", "goal")]
    places += [(step.name, step.settings.get("if"), from_json) for step in file.steps]
    named = {field: place for place, value, read_it in places if value for field in read_it(value).fields}
    dates = [(step.name, step.settings["wait_until"]) for step in file.steps if step.settings.get("wait_until")]
    named |= {field: place for place, value in dates for field in date_from_json(value).fields}
    warnings = []
    for field in sorted(named.keys() - known.keys() if known else ()):
        hint = (
            did_you_mean(near_names(field, known)) or f"Declare it in [audiences.{audience}.fields] if it comes later."
        )
        warnings.append(
            f"campaign {file.definition.name}: {named[field]} names the field {field}, which no recipient of "
            f"{audience} has. {hint}"
        )
    return warnings


def apply_sender(session: Session, settings: Settings, name: str) -> int:
    """Copy a sender from postroad.toml to the sender table. Returns its id."""
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


def _overflow_row(session: Session, settings: Settings, definition: CampaignDefinition) -> dict[str, Any] | None:
    """Return the overflow as the campaign table stores it: ids of senders, in order, and the time limit in ms."""
    if definition.overflow is None:
        return None
    senders = [apply_sender(session, settings, name) for name in definition.overflow.senders]
    return {"senders": senders, "within_ms": definition.overflow.within}


def _segment_row(engine: sa.Engine, settings: Settings, file: CampaignFile) -> dict[str, Any] | None:
    """Return the condition on the audience as the campaign table stores it. Raises ConfigError with its place.

    That of a launched campaign cannot change, and is not read: the audience's file may be gone.
    """
    audience = file.definition.audience
    if audience is None or audience.where is None or file.where_place is None:
        return None
    with read(engine) as connection:
        statement = sa.select(col(Campaign.state), col(Campaign.freezing_at)).where(
            col(Campaign.name) == file.definition.name
        )
        known = connection.execute(statement).one_or_none()
        if known is not None and (known.state is not CampaignState.DRAFT or known.freezing_at is not None):
            return None
        fields = known_fields(connection, audience.name, settings.field_types(audience.name), file.audience_file)
        return to_json(parse_segment(connection, audience.where, file.where_place, audience.name, fields))


def _reject_changes(
    session: Session, campaign: Campaign, file: CampaignFile, sender_id: int, overflow: dict[str, Any] | None
) -> None:
    """Raise StateError if anything but the steps of a launched campaign would change."""
    audience = session.exec(select(Audience.name).where(Audience.id == campaign.audience_id)).one()
    definition = file.definition
    where = definition.audience.where if definition.audience is not None else None
    rollout = definition.rollout.to_row() if definition.rollout is not None else None
    fields: dict[str, tuple[Any, Any]] = {  # as stored, and as in the file
        "sender": (campaign.sender_id, sender_id),
        "audience": (audience, definition.audience_name),
        "audience.where": (campaign.segment["text"] if campaign.segment is not None else None, where),
        "class": (campaign.job_class, definition.job_class),
        "time_zone": (campaign.time_zone, definition.time_zone or campaign.time_zone),
        "window": (campaign.sending_window, definition.window_row),
        "overflow": (campaign.overflow, overflow),
        "transactional": (campaign.transactional, definition.transactional),
        "corrects": (campaign.corrects, correction_row(session.connection(), definition.corrects)),
        "rollout": (campaign.rollout, rollout),
        **{
            name: ((campaign.journey or {}).get(name), (file.journey or {}).get(name))
            for name in ("entry", "exit", "goal")
        },
    }
    changed = [name for name, (stored, wanted) in fields.items() if stored != wanted]
    if changed:
        raise StateError(
            f"campaign {campaign.name} was launched, and its {' and '.join(changed)} cannot change: "
            "recipients would get two versions of it",
            where=str(file.path),
            remedy="Give the changed campaign another name, or revert the change.",
        )
    _require_same_kind(campaign, file)


def _require_same_kind(campaign: Campaign, file: CampaignFile) -> None:
    """Raise StateError if a launched campaign would become a journey, or a campaign without enrolments."""
    if (campaign.journey is None) != (file.journey is None):
        raise StateError(
            f"campaign {campaign.name} was launched {'without' if file.journey else 'with'} enrolments, and these "
            f"steps {'need' if file.journey else 'do not have'} them",
            where=str(file.path),
            remedy="Add only emails and waits, or give the changed campaign another name."
            if file.journey
            else "Revert the change, or give the changed campaign another name.",
        )


def apply_files(engine: sa.Engine, settings: Settings, now: datetime) -> list[Campaign]:
    """Apply every file that the setting ``campaigns`` names.

    Args:
        engine: Database of the campaigns.
        settings: The settings with the senders and the patterns of the files.
        now: The time.

    Returns:
        The stored campaigns.

    Raises:
        ConfigError: A file does not exist or is not valid.
    """
    paths: list[Path] = []
    for pattern in settings.campaigns:
        # Path.glob does not support absolute patterns.
        matches = [Path(path) for path in glob(str(settings.base_dir / pattern), recursive=True)]  # noqa: PTH207
        if not matches and not has_magic(pattern):
            raise ConfigError(
                f"{pattern!r} names no file",
                where=f"{settings.config_path or 'environment'}, campaigns",
                remedy="Paths are relative to postroad.toml; * stands for any name.",
            )
        paths += matches
    return [apply(engine, settings, read_campaign(path, settings), now) for path in sorted(set(paths))]
