"""Sends proofs: the messages of a campaign to the operator, as they would reach a recipient.

A proof is not in the queue and not in the ledger, so it changes no sum, cap or frequency. Its links, its Message-ID and
its return path have numbers that no touch has: an unsubscribe, a reply or a bounce of a proof has no effect on the
recipient that it is rendered for.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.campaign.chosen_member import ChosenMember, find_member
from postroad.campaign.message import StepKey, StepMessage, step_message
from postroad.campaign.preview import email_steps, require_variant
from postroad.delivery.unqueued import SendAttempt, open_unqueued
from postroad.errors import DataError, StateError, UsageError
from postroad.mail.address import normalise_address
from postroad.mail.dkim_keys import load_signers
from postroad.mail.header import raw_field
from postroad.mail.message import CompiledMessage, Message
from postroad.mail.token import PROOFS
from postroad.store.campaign import Campaign, Step, find_campaign
from postroad.store.engine import read
from postroad.store.suppression import suppressions_of
from postroad.store.variant_split import variant_names

SUBJECT_PREFIX = "[proof] "
HEADER = "X-Postroad-Proof"
MAX_PROOFS = 50
"""Maximum number of messages of one call."""


@dataclass(frozen=True, kw_only=True)
class ProofRequest:
    """Which proofs to make.

    Attributes:
        campaign: Name of the campaign.
        to: Addresses that get the proofs. Without one, a proof has the address of the recipient in its To field.
        address: The member of the audience that they are rendered for. None: the first one.
        step: Name of the step. None: all email steps.
        variant: Name of a variant. None: every variant of each step.
    """

    campaign: str
    to: tuple[str, ...]
    address: str | None = None
    step: str | None = None
    variant: str | None = None


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A signed proof, and its way: ``sender`` is the From address. ``variant`` None: the step has no variants."""

    step: str
    variant: str | None
    recipient: str
    to: str
    sender: str
    route: str
    message: Message


def make_proofs(context: AppContext, request: ProofRequest, environ: Mapping[str, str]) -> list[Proof]:
    """Render and sign proofs: of each step and variant, one for each address.

    Args:
        context: The open parts.
        request: Which ones.
        environ: Environment variables, which may hold DKIM keys.

    Returns:
        The proofs, in the order of the steps.

    Raises:
        StateError: The campaign, the step, the variant or the recipient does not exist, or an address is suppressed.
        UsageError: An address is not valid, or there would be too many proofs.
        DataError: The recipient does not have a merge field of a step.
        ConfigError: A template or a key cannot be used.
    """
    addresses = tuple(dict.fromkeys(map(_normalised, request.to)))
    dkim, settings = load_signers(context.settings, environ), context.settings
    member = find_member(context.engine, settings, request.campaign, request.address, context.clock.now())
    with read(context.engine) as connection:
        campaign = find_campaign(connection, request.campaign)
        chosen = _choose(email_steps(connection, campaign, request.step), request)
        if len(chosen) * len(addresses) > MAX_PROOFS:
            what = f"{len(chosen)} contents to {len(addresses)} addresses are more than {MAX_PROOFS} messages"
            raise UsageError(what, remedy="Name one step with --step, or fewer addresses.")
        for address in addresses:
            _require_not_suppressed(connection, context, campaign, address)
        compiled = [
            (
                step.name,
                variant,
                step_message(
                    connection,
                    StepKey(step.id, variant=variant),
                    context.signer,
                    settings.public_url,
                    dkim,
                    settings.services,
                ),
            )
            for step, variant in chosen
            if step.id is not None
        ]
    return [
        _make_proof(context, name, variant, message, member, to)
        for name, variant, message in compiled
        for to in addresses or (member.address,)
    ]


def _choose(steps: Sequence[Step], request: ProofRequest) -> list[tuple[Step, str | None]]:
    """Return the steps with each of their variants, or with the one that is named. Raise StateError without it."""
    if request.variant is None:
        return [(step, variant) for step in steps for variant in variant_names(step.settings) or (None,)]
    having = [step for step in steps if request.variant in variant_names(step.settings)]
    if not having:
        require_variant(steps[0], request.variant)
    return [(step, request.variant) for step in having]


def _make_proof(
    context: AppContext, name: str, variant: str | None, step: StepMessage, member: ChosenMember, to: str
) -> Proof:
    compiled = _marked(step.message, step.campaign, name, variant)
    fields = {field: str(member.attributes[field]) for field in compiled.fields if field in member.attributes}
    # A new number for each, because a mailbox shows two messages with one Message-ID only once.
    number = PROOFS.start + secrets.randbelow(len(PROOFS))
    message = compiled.merge(number, member.address, fields, context.clock.now(), to=to).signed()
    return Proof(
        step=name,
        variant=variant,
        recipient=member.address,
        to=to,
        sender=step.sender,
        route=step.route,
        message=message,
    )


def _marked(message: CompiledMessage, campaign: str, step: str, variant: str | None) -> CompiledMessage:
    values = [f"campaign={campaign};", f"step={step}"]
    if variant is not None:
        values = [*values[:-1], f"{values[-1]};", f"variant={variant}"]
    mark = raw_field(HEADER, values)
    return replace(message, subject_prefix=SUBJECT_PREFIX, marks=(mark,))


def _normalised(address: str) -> str:
    try:
        return normalise_address(address)
    except DataError as error:
        raise UsageError(f"{address!r} is not a valid address: {error.message}") from None


def _require_not_suppressed(connection: sa.Connection, context: AppContext, campaign: Campaign, address: str) -> None:
    hashes = [context.hash_of(address), *context.hash_of.older(address)]
    found = suppressions_of(connection, address, hashes, campaign.permission_audience_id or campaign.audience_id)
    if found:
        raise StateError(
            f"{address} is suppressed ({found[0].reason}), so no proof is sent to it",
            remedy="Send the proof to another address. `postroad suppression lift` deletes a suppression.",
        )


@dataclass(frozen=True, kw_only=True)
class SentProof:
    """A proof, and what the server replied."""

    proof: Proof
    attempt: SendAttempt


async def send_proofs(
    context: AppContext, proofs: Sequence[Proof], progress: Callable[[int, int], None] | None = None
) -> list[SentProof]:
    """Send proofs by the route of their sender, one after the other. Failures do not stop the others.

    Args:
        context: The open parts.
        proofs: The proofs, all of one campaign.
        progress: Called with the number of proofs that were sent, and of all.

    Returns:
        The outcome of each.

    Raises:
        ConfigError: The route does not exist, or a file that it names cannot be used.
    """
    sent: list[SentProof] = []
    if not proofs:
        return sent
    async with open_unqueued(
        context.settings,
        proofs[0].route,
        proofs[0].sender,
        engine=context.engine,
        resolver=await context.resolver(),
        clock=context.clock,
    ) as route:
        for proof in proofs:
            sent.append(SentProof(proof=proof, attempt=await route.send(proof.message)))
            if progress is not None:
                progress(len(sent), len(proofs))
    return sent
