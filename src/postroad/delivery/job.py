"""The jobs of the mail queues: one for each touch. `postroad.delivery.result` has what their events report."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from postroad.errors import UsageError
from postroad.gates.name import QUEUE_GATE, GateName, Receiver
from postroad.queue import JobClass, Lane
from postroad.store.campaign import Campaign

SEND_QUEUE = "email:send"
WARMUP_QUEUE = "email:warmup"
MAIL_QUEUES = (SEND_QUEUE, WARMUP_QUEUE)
"""Queues whose jobs are touches."""


def queue_of(campaign: Campaign) -> str:
    """Return the name of the queue that takes a campaign's touches."""
    return WARMUP_QUEUE if campaign.warmup else SEND_QUEUE


class AttachedFile(msgspec.Struct, frozen=True, array_like=True):
    """A file that one message has in addition to those of its step. ``digest``: of the stored file."""

    name: str
    media_type: str
    digest: str


class SendJob(msgspec.Struct, frozen=True, kw_only=True, tag="send.v1", omit_defaults=True):
    """The job of one touch. It contains the fields of the recipient; templates stay in the store."""

    touch_id: int
    step_id: int
    address: str
    fields: dict[str, str]
    zone: str = ""
    """The recipient's time zone. Empty: not known."""
    provider: str = "other"
    """Mailbox provider whose limits apply: one of providers.toml, a site that much mail goes to, or `other`."""
    site: str = ""
    """Name that all domains with the same mail hosts share. Empty: not known."""
    shaping_overrides: str = msgspec.field(default="", name="tables")
    """Tables of shaping.toml that limit its site or domain, as `site.mx.example.net`. Empty: it has no such table."""
    place: str = ""
    """The recipient's country, with its subdivision, of a campaign with holidays: ``DE-BY``. Empty: not known."""
    sender_id: int = 0
    """Id of the sender that replaces the campaign's own sender. 0: it is not replaced."""
    version: int = 1
    """Version of the step that names the fields."""
    variant: str = ""
    """Variant of the step. Empty: the step has none. Jobs of versions without variants do not have it."""

    files: tuple[AttachedFile, ...] = ()
    """Files of this message alone, as a program requested it."""

    @property
    def receiver(self) -> Receiver:
        """The receiver whose limits apply."""
        if not self.shaping_overrides:
            return Receiver(self.provider)
        return Receiver.parse(f"{self.provider}/{self.shaping_overrides}") or Receiver(self.provider)


encode_job = msgspec.msgpack.Encoder().encode
decode_job = msgspec.msgpack.Decoder(SendJob).decode


def job_id(touch_id: int) -> str:
    """Return the id of a touch's job. It is derived from the touch, so submitting a touch twice makes one job."""
    return str(touch_id)


def touch_of(id_: str) -> int:
    """Return the touch of a job."""
    return int(id_)


MAX_DIGITS = 18
"""Length of a touch id that every database can compare."""


def parse_touch_id(text: str) -> int:
    """Return the touch that an operator names.

    Raises:
        UsageError: The text is not a touch id.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise UsageError(f"{text!r} is not a touch id (a number) or an email address")
    return int(text)


def lane_of(
    *,
    sender: str,
    receiver: Receiver,
    campaign: str,
    route: str,
    job_class: str,
    warmup: Sequence[str] = (),
) -> Lane:
    """Return the lane of a campaign's touches with the same gates. ``warmup``: identities that the sender warms up."""
    gates = (
        GateName.campaign(campaign),
        GateName.hold(sender),
        GateName.sender(sender),
        GateName.at_receiver(sender, receiver),
        GateName.provider(receiver.provider),
        *(GateName.warmup(receiver.provider, identity) for identity in warmup),
        GateName.route(route),
        QUEUE_GATE,
    )
    return Lane(
        name=f"{sender} {receiver} {campaign}",
        gates=tuple(map(str, gates)),
        job_class=JobClass(job_class),
        group=campaign,
    )
