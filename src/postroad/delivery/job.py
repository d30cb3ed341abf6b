"""What travels through the queue: one job for each touch, and one note for each thing that happened to it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from postroad.dns.providers import OTHER, provider_table
from postroad.errors import Blame, UsageError
from postroad.queue import JobClass, Lane
from postroad.store.campaign import Campaign
from postroad.store.ledger import TouchState

SEND_QUEUE = "email:send"
WARMUP_QUEUE = "email:warmup"
MAIL_QUEUES = (SEND_QUEUE, WARMUP_QUEUE)
"""Queues whose jobs are touches."""


def queue_of(campaign: Campaign) -> str:
    """Name of the queue that a campaign's touches go by."""
    return WARMUP_QUEUE if campaign.warmup else SEND_QUEUE


class SendMessage(msgspec.Struct, frozen=True, kw_only=True, tag="send.v1", omit_defaults=True):
    """Send one touch. The templates stay in the store; only what differs between recipients travels."""

    touch_id: int
    step_id: int
    address: str
    fields: dict[str, str]
    zone: str = ""
    """The recipient's time zone, as far as it is known."""
    provider: str = "other"
    """Mailbox provider whose limits hold: one of providers.toml, a site that much mail goes to, or `other`."""
    site: str = ""
    """The same for all domains with the same mail hosts; empty: not known."""
    tables: str = ""
    """Tables of shaping.toml that give its site or domain a pace of its own: `site.mx.example.net`; empty: none."""
    sender_id: int = 0
    """Who sends it in place of its campaign's sender; 0: nobody."""


class DeliveryNote(msgspec.Struct, frozen=True, kw_only=True, tag="delivery.v1", omit_defaults=True):
    """What happened to a touch on one claim, as the recorder puts it into the ledger.

    ``words``: key of a refusal's words, where they would mean the sender if many recipients got them; see
    `postroad.store.same_words`.
    """

    state: TouchState
    cause: str | None = None
    blame: Blame | None = None
    reply_code: int | None = None
    enhanced_code: str | None = None
    reply: str | None = None
    suppress: bool = False
    words: str = ""


encode_job = msgspec.msgpack.Encoder().encode
decode_job = msgspec.msgpack.Decoder(SendMessage).decode
encode_note = msgspec.msgpack.Encoder().encode
decode_note = msgspec.msgpack.Decoder(DeliveryNote).decode


def job_id(touch_id: int) -> str:
    """Derived from the ledger's key, so that submitting a touch twice is harmless."""
    return str(touch_id)


def touch_of(id_: str) -> int:
    """Return the touch that a job is of."""
    return int(id_)


MAX_DIGITS = 18
"""Of the id of a touch: what every database can compare."""


def read_touch(text: str) -> int:
    """Return the touch that a person names. Raises UsageError."""
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise UsageError(f"{text!r} is not a touch id (a number) or an email address")
    return int(text)


def sender_gate(sender: str) -> str:
    """Name of the gate that limits one sender."""
    return f"sender:{sender}"


def hold_gate(sender: str) -> str:
    """Name of the gate that is shut while a sender's domain fails; what else pauses the sender has gates of its own."""
    return f"hold:{sender}"


def receiver_of(provider: str, tables: str = "") -> str:
    """Name of whose limits hold together: a provider, or a site or domain behind it that shaping.toml gives a pace."""
    return f"{provider}/{tables}" if tables else provider


def provider_gate(sender: str, receiver: str) -> str:
    """Name of the gate that limits one sender at one receiver."""
    return f"provider:{receiver}:{sender}"


def shared_gate(provider: str) -> str:
    """Name of the gate that limits all senders together at one mailbox provider."""
    return f"provider:{provider}"


def route_gate(route: str) -> str:
    """Name of the gate that limits one route."""
    return f"route:{route}"


def warmup_gate(provider: str, identity: str) -> str:
    """Name of the gate that holds an identity to its warmup's cap at one mailbox provider."""
    return f"warmup:{provider if provider in provider_table().names else OTHER}:{identity}"


def campaign_gate(campaign: str) -> str:
    """Name of the gate that limits one campaign."""
    return f"campaign:{campaign}"


QUEUE_GATE = "queue"


def lane_of(
    *,
    sender: str,
    provider: str,
    campaign: str,
    route: str,
    job_class: str,
    tables: str = "",
    warmup: Sequence[str] = (),
) -> Lane:
    """Lane of the touches of one campaign that are limited alike. ``warmup``: identities of its sender that warm up."""
    receiver = receiver_of(provider, tables)
    return Lane(
        name=f"{sender} {receiver} {campaign}",
        gates=(
            campaign_gate(campaign),
            hold_gate(sender),
            sender_gate(sender),
            provider_gate(sender, receiver),
            shared_gate(provider),
            *(warmup_gate(provider, identity) for identity in warmup),
            route_gate(route),
            QUEUE_GATE,
        ),
        job_class=JobClass(job_class),
        group=campaign,
    )
