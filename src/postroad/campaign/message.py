"""Compiles the message of an email step from the database: its templates, files and sender."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import make_transient
from sqlmodel import Session, col, select

from postroad.campaign.files import step_files
from postroad.errors import ConfigError, StateError, unknown_name
from postroad.mail.body import File
from postroad.mail.dkim import DkimSigner
from postroad.mail.markup_process import prepare_in_subprocess
from postroad.mail.message import CompiledMessage, MessageSource, SenderIdentity, compile_message
from postroad.mail.token import TokenSigner
from postroad.settings import Service
from postroad.store.campaign import Campaign, Sender, Step, step_settings
from postroad.store.stored_file import stored_files
from postroad.store.variant_split import content_of, variant_names


@dataclass(frozen=True, kw_only=True)
class StepMessage:
    """The compiled message of a step, with the sender and the route that it is sent by."""

    step_id: int
    campaign: str
    sender: str
    route: str
    message: CompiledMessage


class StepKey(NamedTuple):
    """What a message is made of: a step, a sender, a version of the step and a variant.

    ``sender_id``: None: the campaign's sender. ``version``: None: the current one. ``variant``: None: the step has
    none.
    """

    step_id: int
    sender_id: int | None = None
    version: int | None = None
    variant: str | None = None


def step_message(
    connection: sa.Connection,
    key: StepKey,
    signer: TokenSigner,
    public_url: str,
    dkim: Mapping[str, DkimSigner] | None = None,
    services: Mapping[str, Service] | None = None,
) -> StepMessage:
    """Compile the message of an email step.

    Args:
        connection: Connection to the database.
        key: The step, its version and the sender.
        signer: Signer of the tokens in links and in the envelope sender.
        public_url: URL at which recipients reach `postroad web`.
        dkim: DKIM signers by name of the sender. None: messages are not signed.
        services: Mail services of routes, by name of the route. None: messages have no tag.

    Returns:
        The message.

    Raises:
        StateError: There is no such step, or one of its files is not in the database.
        ConfigError: The step has no such variant.
    """
    step, campaign, sender = _load_step(connection, key)
    name = message_name(campaign.name, step.name, key.variant)
    try:
        content = content_of(step.settings, key.variant)
    except KeyError:
        known = list(variant_names(step.settings))
        error = unknown_name(f"variant of step {step.name}", key.variant or "", known)
        raise ConfigError(error.message, where=name, remedy=error.remedy) from None
    text, html = prepare_in_subprocess(text=content["text"], html=content["html"], mjml=content.get("mjml"), name=name)
    identity = SenderIdentity(
        address=sender.address,
        display_name=sender.display_name,
        reply_to=sender.reply_to,
        postal_address=sender.postal_address,
        bounce_domain=sender.bounce_domain,
    )
    message = compile_message(
        MessageSource(
            subject=content["subject"], text=text, html=html, files=_load_files(connection, step, name), name=name
        ),
        sender=identity,
        signer=signer,
        public_url=public_url,
        dkim=(dkim or {}).get(sender.name),
        service=(services or {}).get(sender.route),
    )
    return StepMessage(
        step_id=key.step_id, campaign=campaign.name, sender=sender.address, route=sender.route, message=message
    )


def message_name(campaign: str, step: str, variant: str | None) -> str:
    """Return how errors and findings name the message of a step."""
    name = f"campaign {campaign}, step {step}"
    return name if variant is None else f"{name}, variant {variant}"


def _load_step(connection: sa.Connection, key: StepKey) -> tuple[Step, Campaign, Sender]:
    row = (
        Session(connection)
        .exec(
            select(Step, Campaign, Sender)
            .join(Campaign, col(Campaign.id) == col(Step.campaign_id))
            .join(Sender, col(Sender.id) == (col(Campaign.sender_id) if key.sender_id is None else key.sender_id))
            .where(Step.id == key.step_id)
        )
        .one_or_none()
    )
    if row is None:
        raise StateError(f"there is no step number {key.step_id}")
    step, campaign, sender = row
    if key.version is not None:
        make_transient(step)
        step.settings = step_settings(connection, step, key.version)
    return step, campaign, sender


def _load_files(connection: sa.Connection, step: Step, name: str) -> list[File]:
    entries = step.settings.get("files", [])
    octets = stored_files(connection, {entry["digest"] for entry in entries})
    if any(entry["digest"] not in octets for entry in entries):
        raise StateError(f"a file of {name} is not in the database", remedy="Apply the campaign again.")
    return step_files(entries, octets)
