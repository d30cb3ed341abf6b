"""Renders the message that a step would send to one recipient."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email import policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from postroad.campaign.message import StepKey, step_message
from postroad.campaign.segment import Segment
from postroad.errors import StateError, unknown_name
from postroad.mail.address import normalise_address
from postroad.mail.dkim import DkimSigner
from postroad.mail.token import TokenSigner
from postroad.settings import Settings
from postroad.store.campaign import Campaign, Step, StepKind, find_campaign, steps_of
from postroad.store.engine import read
from postroad.store.planning import members_after
from postroad.store.variant import find_variant_test
from postroad.store.variant_split import split_of, variant_names

PREVIEW_TOUCH = 0
"""Touch id in the links of a preview. No touch has it, so that the links have no effect."""
PAGES = 20
"""So many pages of members are searched for the first one who meets a condition."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """One message as it would be sent. ``subject``, ``text`` and ``html`` are decoded, as a mail program shows them."""

    step: str
    recipient: str
    return_path: str
    subject: str
    text: str
    html: str | None
    content: bytes
    variant: str | None = None

    @property
    def header(self) -> str:
        return self.content.partition(b"\r\n\r\n")[0].decode().replace("\r\n", "\n")

    @property
    def encoded_subject(self) -> str | None:
        """The decoded subject if the header has it encoded, else None."""
        return None if f"Subject: {self.subject}\n" in self.header.replace("\n ", " ") else self.subject


@dataclass(frozen=True, kw_only=True)
class PreviewRequest:
    """Which message to preview.

    ``step`` None: the first email. ``address`` None: the first member of the segment. ``variant`` None: the one that
    the recipient got or gets.
    """

    campaign: str
    step: str | None = None
    address: str | None = None
    variant: str | None = None


def preview(
    engine: sa.Engine,
    settings: Settings,
    signer: TokenSigner,
    dkim: Mapping[str, DkimSigner],
    request: PreviewRequest,
    *,
    now: datetime,
) -> Preview:
    """Render a step for a member of the audience, with a DKIM signature if the sender has a key.

    Args:
        engine: The database.
        settings: The settings.
        signer: Signer of the tokens in links.
        dkim: DKIM signers by name of the sender.
        request: Campaign, step and recipient.
        now: The time.

    Returns:
        The message.

    Raises:
        StateError: The campaign, the step, the variant or the recipient does not exist.
        DataError: The recipient does not have a merge field of the step.
    """
    with read(engine) as connection:
        campaign = find_campaign(connection, request.campaign)
        step = email_steps(connection, campaign, request.step)[0]
        assert step.id is not None  # noqa: S101  (read from its table)
        member = find_member(connection, campaign, request.address, now)
        variant = request.variant or variant_of(connection, step, member.recipient_id)
        require_variant(step, variant)
        compiled = step_message(
            connection, StepKey(step.id, variant=variant), signer, settings.public_url, dkim, settings.services
        ).message
    fields = {field: str(member.attributes[field]) for field in compiled.fields if field in member.attributes}
    message = compiled.merge(PREVIEW_TOUCH, member.address, fields, now).signed()
    parsed = BytesParser(policy=policy.default).parsebytes(message.content)
    return Preview(
        step=step.name,
        recipient=member.address,
        return_path=message.return_path,
        subject=_subject(message.content),
        text=_part(parsed, "plain") or "",
        html=_part(parsed, "html"),
        content=message.content,
        variant=variant,
    )


def variant_of(connection: sa.Connection, step: Step, recipient_id: int) -> str | None:
    """Return the variant of a step that a recipient got, or would get; None: the step has no variants.

    A recipient who still waits for the decision on the winner would get this one if there was no winner.
    """
    split = split_of(step.campaign_id, step.name, step.settings)
    if split is None:
        return None
    given = sa.text(
        "SELECT variant FROM touch WHERE campaign_id = :campaign_id AND step_id = :step_id "
        "AND recipient_id = :recipient_id"
    )
    values = {"campaign_id": step.campaign_id, "step_id": step.id, "recipient_id": recipient_id}
    found: str | None = connection.execute(given, values).scalar()
    if found is None and split.winner is not None and step.id is not None:
        test = find_variant_test(connection, step.id)
        found = test.winner if test is not None else None
    return found or split.draw(recipient_id)


def require_variant(step: Step, name: str | None) -> None:
    """Raise StateError if a step has no variant of a name. None: no variant is named."""
    known = variant_names(step.settings)
    if name is not None and name not in known:
        if not known:
            raise StateError(f"step {step.name} has no variants", remedy="Leave out the variant.")
        raise unknown_name(f"variant of step {step.name}", name, list(known))


class ChosenMember(NamedTuple):
    """A member of an audience, with the merge fields."""

    address: str
    attributes: dict[str, Any]
    recipient_id: int


def _subject(content: bytes) -> str:
    """Decode the subject. White space between encoded words is ignored (RFC 2047 §6.2)."""
    folded = str(BytesParser(policy=policy.compat32).parsebytes(content, headersonly=True)["Subject"])
    return str(make_header(decode_header(folded.replace("\r\n", ""))))


def _part(message: EmailMessage, subtype: Literal["plain", "html"]) -> str | None:
    part = message.get_body((subtype,))
    return part.get_content().replace("\r\n", "\n") if part is not None else None


def email_steps(connection: sa.Connection, campaign: Campaign, name: str | None) -> list[Step]:
    """Return the email steps of a campaign, or the one with a name. Raises StateError if there is no such step."""
    assert campaign.id is not None  # noqa: S101  (read from its table)
    emails = [step for step in steps_of(connection, campaign.id) if step.kind is StepKind.EMAIL]
    found = [step for step in emails if name in (None, step.name)]
    if not found:
        raise unknown_name(f"email step of campaign {campaign.name}", name or "", [step.name for step in emails])
    return found


def find_member(connection: sa.Connection, campaign: Campaign, address: str | None, now: datetime) -> ChosenMember:
    """Return a member of a campaign's audience.

    Args:
        connection: Connection to the database.
        campaign: The campaign.
        address: The member. None: the first one who meets the condition of the campaign's segment.
        now: Time at which the condition is evaluated.

    Returns:
        The member. If none of the first members meets the condition, the first one.

    Raises:
        StateError: There is no such member.
    """
    recipient_id = _first_of_segment(connection, Segment.of(campaign, now)) if address is None else None
    statement = sa.text(
        "SELECT recipient.address AS address, recipient.attributes AS attributes, recipient.id FROM audience_member "
        "JOIN recipient ON recipient.id = audience_member.recipient_id WHERE audience_id = :audience_id "
        f"AND {'recipient.address = :address' if address is not None else 'recipient.id = :recipient_id'}"
    ).columns(sa.column("address", sa.Text()), sa.column("attributes", sa.JSON()), sa.column("id", sa.Integer()))
    chosen = {"recipient_id": recipient_id} if address is None else {"address": normalise_address(address)}
    row = connection.execute(statement, {"audience_id": campaign.audience_id, **chosen}).one_or_none()
    if row is None:
        audience = connection.execute(
            sa.text("SELECT name FROM audience WHERE id = :audience_id"), {"audience_id": campaign.audience_id}
        ).scalar_one()
        problem = (
            f"{address} is not in the audience {audience!r} of campaign {campaign.name}"
            if address
            else f"its audience {audience!r} is empty"
        )
        file = shlex.quote(campaign.audience_file) if campaign.audience_file is not None else "FILE"
        raise StateError(problem, remedy=f"Import it: `postroad audience import {audience} {file}`.")
    return ChosenMember(row.address, row.attributes, row.id)


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
