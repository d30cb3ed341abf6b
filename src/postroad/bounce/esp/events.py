"""Selects the events of a webhook call to store, and parses stored events, for every ESP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from postroad.bounce.esp import mailgun, postmark, sendgrid, ses
from postroad.bounce.report import MailKind, ParsedMail
from postroad.settings import Service

SOURCE = "webhook:"
"""Prefix of the source of a stored event, before the ESP's name. Only the verified webhook sets it."""


class _Parser(NamedTuple):
    events: Callable[[object], Iterator[dict[str, Any]]]
    parse: Callable[[dict[str, Any]], ParsedMail | None]


_SERVICES = {
    Service.SES: _Parser(ses.events, ses.parse),
    Service.SENDGRID: _Parser(sendgrid.events, sendgrid.parse),
    Service.POSTMARK: _Parser(postmark.events, postmark.parse),
    Service.MAILGUN: _Parser(mailgun.events, mailgun.parse),
}
_encode = msgspec.json.Encoder(order="deterministic").encode  # Equal events have equal octets.


def events_of(service: Service, document: object) -> list[bytes]:
    """Return the encoded events of one call that are of interest."""
    parser = _SERVICES[service]
    return [_encode(event) for event in parser.events(document) if parser.parse(event) is not None]


def source_of(service: Service) -> str:
    """Return the source of an ESP's stored events."""
    return f"{SOURCE}{service}"


def service_of(source: str) -> Service | None:
    """Return the ESP of a source, or None if it is a source of mail."""
    return Service(source.removeprefix(SOURCE)) if source.startswith(SOURCE) else None


def parse_event(service: Service, raw: bytes) -> ParsedMail:
    """Parse a stored event. An event of no interest becomes a mail of the kind `OTHER`."""
    try:
        event = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        event = None
    report = _SERVICES[service].parse(event) if isinstance(event, dict) else None
    return report or ParsedMail(kind=MailKind.OTHER, format="an event that says nothing")
