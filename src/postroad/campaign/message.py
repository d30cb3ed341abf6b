"""The message of an email step: its templates, its sender and our tokens, compiled from what the store holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col, select

from postroad.campaign.files import step_files
from postroad.errors import StateError
from postroad.mail.dkim import DkimSigner
from postroad.mail.markup_process import finish
from postroad.mail.message import CompiledMessage, SenderIdentity, compile_message
from postroad.mail.token import TokenSigner
from postroad.settings import Service
from postroad.store.campaign import Campaign, Sender, Step, stored_files


@dataclass(frozen=True, kw_only=True)
class StepMessage:
    """What is needed to send a step: its compiled message, and the route that carries it."""

    step_id: int
    campaign: str
    sender: str
    route: str
    message: CompiledMessage


def step_message(
    connection: sa.Connection,
    step_id: int,
    signer: TokenSigner,
    public_url: str,
    dkim: Mapping[str, DkimSigner] | None = None,
    services: Mapping[str, Service] | None = None,
    *,
    sender_id: int | None = None,
) -> StepMessage:
    """Compile the message of an email step. ``dkim``: what signs, by the names of senders; None: nothing is signed.
    ``sender_id``: who sends it in place of the campaign's sender.

    ``services``: the mail services behind routes, by the names of these; none: the message has no tag.
    Raises StateError when there is no such step, ConfigError for its templates.
    """
    found = (
        Session(connection)
        .exec(
            select(Step, Campaign, Sender)
            .join(Campaign, col(Campaign.id) == col(Step.campaign_id))
            .join(Sender, col(Sender.id) == (col(Campaign.sender_id) if sender_id is None else sender_id))
            .where(Step.id == step_id)
        )
        .one_or_none()
    )
    if found is None:
        raise StateError(f"there is no step number {step_id}")
    step, campaign, sender = found
    identity = SenderIdentity(
        address=sender.address,
        display_name=sender.display_name,
        reply_to=sender.reply_to,
        postal_address=sender.postal_address,
        bounce_domain=sender.bounce_domain,
    )
    name = f"campaign {campaign.name}, step {step.name}"
    text, html = finish(
        text=step.settings["text"], html=step.settings["html"], mjml=step.settings.get("mjml"), name=name
    )
    entries = step.settings.get("files", [])
    octets = stored_files(connection, {entry["digest"] for entry in entries})
    if any(entry["digest"] not in octets for entry in entries):
        raise StateError(f"a file of {name} is not in the store", remedy="Apply the campaign again.")
    message = compile_message(
        sender=identity,
        subject=step.settings["subject"],
        text=text,
        html=html,
        signer=signer,
        public_url=public_url,
        name=name,
        files=step_files(entries, octets),
        dkim=(dkim or {}).get(sender.name),
        service=(services or {}).get(sender.route),
    )
    return StepMessage(
        step_id=step_id, campaign=campaign.name, sender=sender.address, route=sender.route, message=message
    )
