"""What a step would send to one recipient, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email import policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any, Literal

import sqlalchemy as sa

from postroad.campaign.message import step_message
from postroad.errors import StateError, unknown_name
from postroad.mail.address import normalise_address
from postroad.mail.dkim import DkimSigner
from postroad.mail.token import TokenSigner
from postroad.settings import Settings
from postroad.store.campaign import Campaign, Step, StepKind, find_campaign, steps_of
from postroad.store.engine import read

PREVIEW_TOUCH = 0
"""No touch has this number, so that the links of a preview are nobody's."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """One message as it would leave. ``subject``, ``text`` and ``html``: what a mail program reads in it."""

    step: str
    recipient: str
    return_path: str
    subject: str
    text: str
    html: str | None
    content: bytes

    @property
    def header(self) -> str:
        return self.content.partition(b"\r\n\r\n")[0].decode().replace("\r\n", "\n")

    @property
    def encoded_subject(self) -> str | None:
        """The subject as a mail program reads it, if the header has it encoded."""
        return None if f"Subject: {self.subject}\n" in self.header.replace("\n ", " ") else self.subject


def preview(
    engine: sa.Engine,
    settings: Settings,
    signer: TokenSigner,
    dkim: Mapping[str, DkimSigner],
    name: str,
    *,
    step: str | None,
    address: str | None,
    now: datetime,
) -> Preview:
    """Merge a step (None: the first email) for a member of the audience (None: the first), signed where there are keys.

    Raises StateError when one of them is not there, DataError for a merge field that the recipient lacks.
    """
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        found = _find_step(connection, campaign, step)
        assert found.id is not None  # noqa: S101  (read from its table)
        recipient, attributes = _find_member(connection, campaign, address)
        step_of = step_message(connection, found.id, signer, settings.public_url, dkim, settings.services)
        compiled = step_of.message
    fields = {field: str(attributes[field]) for field in compiled.fields if field in attributes}
    message = compiled.merge(PREVIEW_TOUCH, recipient, fields, now).signed()
    parsed = BytesParser(policy=policy.default).parsebytes(message.content)
    return Preview(
        step=found.name,
        recipient=recipient,
        return_path=message.return_path,
        subject=_subject(message.content),
        text=_part(parsed, "plain") or "",
        html=_part(parsed, "html"),
        content=message.content,
    )


def _subject(content: bytes) -> str:
    """Decode the subject (RFC 2047 §6.2): blanks between encoded words are none of it, those in them are."""
    folded = str(BytesParser(policy=policy.compat32).parsebytes(content, headersonly=True)["Subject"])
    return str(make_header(decode_header(folded.replace("\r\n", ""))))


def _part(message: EmailMessage, subtype: Literal["plain", "html"]) -> str | None:
    part = message.get_body((subtype,))
    return part.get_content().replace("\r\n", "\n") if part is not None else None


def _find_step(connection: sa.Connection, campaign: Campaign, name: str | None) -> Step:
    assert campaign.id is not None  # noqa: S101  (read from its table)
    emails = [step for step in steps_of(connection, campaign.id) if step.kind is StepKind.EMAIL]
    for step in emails:
        if name in (None, step.name):
            return step
    raise unknown_name(f"email step of campaign {campaign.name}", name or "", [step.name for step in emails])


def _find_member(connection: sa.Connection, campaign: Campaign, address: str | None) -> tuple[str, dict[str, Any]]:
    statement = sa.text(
        "SELECT recipient.address AS address, recipient.attributes AS attributes FROM audience_member "
        "JOIN recipient ON recipient.id = audience_member.recipient_id WHERE audience_id = :audience_id "
        f"{'AND recipient.address = :address' if address is not None else ''} ORDER BY recipient.id LIMIT 1"
    ).columns(sa.column("address", sa.Text()), sa.column("attributes", sa.JSON()))
    values: dict[str, object] = {"audience_id": campaign.audience_id}
    if address is not None:
        values["address"] = normalise_address(address)
    found = connection.execute(statement, values).one_or_none()
    if found is None:
        audience = connection.execute(
            sa.text("SELECT name FROM audience WHERE id = :audience_id"), {"audience_id": campaign.audience_id}
        ).scalar_one()
        who = (
            f"{address} is not in the audience {audience!r} of campaign {campaign.name}"
            if address
            else f"its audience {audience!r} is empty"
        )
        raise StateError(who, remedy=f"Import a CSV: `postroad audience import {audience} FILE`.")
    return found.address, found.attributes
