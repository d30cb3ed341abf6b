"""Renders the message that a step would send to one recipient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email import policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Literal

import sqlalchemy as sa

from postroad.campaign.chosen_member import find_member
from postroad.campaign.message import StepKey, step_message
from postroad.errors import StateError, unknown_name
from postroad.mail.dkim import DkimSigner
from postroad.mail.token import TokenSigner
from postroad.settings import Settings
from postroad.store.campaign import Campaign, Step, StepKind, find_campaign, steps_of
from postroad.store.engine import read
from postroad.store.variant import find_variant_test
from postroad.store.variant_split import split_of, variant_names

PREVIEW_TOUCH = 0
"""Touch id in the links of a preview. No touch has it, so that the links have no effect."""


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
    member = find_member(engine, settings, request.campaign, request.address, now)
    with read(engine) as connection:
        campaign = find_campaign(connection, request.campaign)
        step = email_steps(connection, campaign, request.step)[0]
        assert step.id is not None  # noqa: S101  (read from its table)
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


def variant_of(connection: sa.Connection, step: Step, recipient_id: int | None) -> str | None:
    """Return the variant of a step that a recipient got, or would get; None: the step has no variants.

    A recipient who still waits for the decision on the winner would get this one if there was no winner. For a
    recipient who is not imported yet, it is not known: the first variant is returned.
    """
    split = split_of(step.campaign_id, step.name, step.settings)
    if split is None:
        return None
    if recipient_id is None:
        return variant_names(step.settings)[0]
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
