"""Chooses the recipient of a preview or a proof: a member, or one of the file that the launch imports."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from postroad.campaign.audience_file import audience_file
from postroad.campaign.file_trial import first_of_file
from postroad.campaign.segment import Segment
from postroad.errors import DataError, StateError
from postroad.mail.address import normalise_address
from postroad.settings import Settings
from postroad.store.campaign import Campaign, find_campaign
from postroad.store.engine import read
from postroad.store.planning import members_after
from postroad.store.recipient import audience_name

PAGES = 20
"""So many pages of members are searched for the first one who meets a condition."""


class ChosenMember(NamedTuple):
    """A member of an audience, with the merge fields. ``recipient_id`` None: the recipient is not imported yet."""

    address: str
    attributes: dict[str, Any]
    recipient_id: int | None


def find_member(engine: sa.Engine, settings: Settings, name: str, address: str | None, now: datetime) -> ChosenMember:
    """Return a member of a campaign's audience, else a recipient of the file that its launch imports.

    Args:
        engine: The database.
        settings: The settings.
        name: Name of the campaign.
        address: The member. None: the first one who meets the condition of the campaign's segment.
        now: Time at which the condition is evaluated.

    Returns:
        The member. If none of the first members meets the condition, the first one.

    Raises:
        StateError: There is no such campaign, or no such member.
    """
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        member = _stored_member(connection, campaign, address, now)
        audience = audience_name(connection, campaign.audience_id)
    if member is not None:
        return member
    wanted = normalise_address(address) if address is not None else None
    for coming in coming_members(engine, settings, campaign, now):
        if wanted in (None, coming.address):
            return coming
    problem = (
        f"{address} is not in the audience {audience!r} of campaign {name}"
        if address
        else f"its audience {audience!r} is empty"
    )
    file = shlex.quote(campaign.audience_file) if campaign.audience_file is not None else "FILE"
    raise StateError(problem, remedy=f"Import it: `postroad audience import {audience} {file}`.")


def coming_members(engine: sa.Engine, settings: Settings, campaign: Campaign, now: datetime) -> Sequence[ChosenMember]:
    """Return recipients of the file that the launch of a campaign imports first.

    Args:
        engine: The database.
        settings: The settings.
        campaign: The campaign.
        now: Time at which its condition is evaluated.

    Returns:
        Those of the first thousand rows who would get mail. Empty: the launch imports no file, or the file cannot be
        read on this machine.
    """
    try:
        file = audience_file(engine, campaign.name)
        if file is None or not file.to_import:
            return ()
        types = settings.field_types(file.audience)
        found = first_of_file(engine, Segment.of(campaign, now), file.path, types)
    except DataError:  # The preflight reports it.
        return ()
    return [ChosenMember(each.address, each.attributes, each.recipient_id) for each in found]


def _stored_member(
    connection: sa.Connection, campaign: Campaign, address: str | None, now: datetime
) -> ChosenMember | None:
    recipient_id = _first_of_segment(connection, Segment.of(campaign, now)) if address is None else None
    statement = sa.text(
        "SELECT recipient.address AS address, recipient.attributes AS attributes, recipient.id FROM audience_member "
        "JOIN recipient ON recipient.id = audience_member.recipient_id WHERE audience_id = :audience_id "
        f"AND {'recipient.address = :address' if address is not None else 'recipient.id = :recipient_id'}"
    ).columns(sa.column("address", sa.Text()), sa.column("attributes", sa.JSON()), sa.column("id", sa.Integer()))
    chosen = {"recipient_id": recipient_id} if address is None else {"address": normalise_address(address)}
    row = connection.execute(statement, {"audience_id": campaign.audience_id, **chosen}).one_or_none()
    return ChosenMember(row.address, row.attributes, row.id) if row is not None else None


def _first_of_segment(connection: sa.Connection, segment: Segment) -> int | None:
    """Return the first of some thousand members who meets the condition, else the first one. None: it is empty."""
    first: int | None = None
    after = 0
    for _ in range(PAGES):
        ids = [member.recipient_id for member in members_after(connection, segment.audience_id, after)]
        if not ids:
            break
        if met := segment.meeting(connection, ids):
            return min(met)
        first, after = first or ids[0], ids[-1]
    return first
