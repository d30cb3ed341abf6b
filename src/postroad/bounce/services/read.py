"""Every mail service, by name: which events of a call are kept, and what a kept one says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from postroad.bounce.report import MailKind, ParsedMail
from postroad.bounce.services import mailgun, postmark, sendgrid, ses
from postroad.settings import Service

SOURCE = "webhook:"
"""How the source of a kept event begins; the service's name follows. Only its webhook, which is verified, says so."""


class _Reading(NamedTuple):
    events: Callable[[object], Iterator[dict[str, Any]]]
    read: Callable[[dict[str, Any]], ParsedMail | None]


_SERVICES = {
    Service.SES: _Reading(ses.events, ses.read),
    Service.SENDGRID: _Reading(sendgrid.events, sendgrid.read),
    Service.POSTMARK: _Reading(postmark.events, postmark.read),
    Service.MAILGUN: _Reading(mailgun.events, mailgun.read),
}
_encode = msgspec.json.Encoder(order="deterministic").encode  # The same event is the same octets, whenever it comes.


def events_of(service: Service, document: object) -> list[bytes]:
    """Events of one call that say something of a touch, each as it is kept. The others are not kept."""
    reading = _SERVICES[service]
    return [_encode(event) for event in reading.events(document) if reading.read(event) is not None]


def source_of(service: Service) -> str:
    return f"{SOURCE}{service}"


def service_of(source: str) -> Service | None:
    """The service whose event is kept under a source; None: it is a mail."""
    return Service(source.removeprefix(SOURCE)) if source.startswith(SOURCE) else None


def read_event(service: Service, raw: bytes) -> ParsedMail:
    """Read a kept event. What says nothing is a report of nothing."""
    try:
        event = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        event = None
    report = _SERVICES[service].read(event) if isinstance(event, dict) else None
    return report or ParsedMail(kind=MailKind.OTHER, format="an event that says nothing")
