"""Records consents, and proves that a recipient asked for mail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.app.message_order import FieldError, checked_address
from postroad.app.recipients import RowFault
from postroad.app.suppressions import stored_keys
from postroad.errors import StateError
from postroad.mail.address import domain_of
from postroad.store.consent import NewConsent, record_consents
from postroad.store.consent_page import ConsentRow, consents_of_recipient
from postroad.store.engine import read, write
from postroad.store.keyset import LAST_ID
from postroad.store.person_history import recipient_of_address, suppressions_with_keys
from postroad.store.recipient import acquire_import_lock, audience_ids, audience_name
from postroad.store.suppression import EVERYWHERE, SuppressionReason

MAX_CONSENTS: Final = 1_000
"""Consents that one call records, in one transaction; and those that a proof lists."""
MAX_SOURCE_CHARACTERS: Final = 200
MAX_WORDING_CHARACTERS: Final = 5_000
_CLOCK_SKEW: Final = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class GivenConsent:
    """A consent as a caller gives it.

    Attributes:
        address: Address of the recipient.
        audience: Name of the audience, which must exist.
        given_at: When the recipient asked for mail.
        source: Where: the URL of a form, an event, a contract.
        ip: Address of the recipient's computer.
        wording: The text to which the recipient agreed.
        confirmation: How the address was confirmed, such as the Message-ID of a confirmed mail.
    """

    address: str
    audience: str
    given_at: datetime
    source: str
    ip: str = ""
    wording: str = ""
    confirmation: str = ""


@dataclass(frozen=True, kw_only=True)
class RecordedConsents:
    """What a call did. ``known``: consents that were recorded before."""

    recorded: int
    known: int
    faults: tuple[RowFault, ...]


@dataclass(frozen=True, kw_only=True)
class HeldBySuppression:
    """A suppression that holds mail to an address. ``audience`` None: mail of all audiences."""

    reason: SuppressionReason
    audience: str | None
    source: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class ConsentProof:
    """What shows that a recipient asked for mail, and the suppressions that hold it nevertheless."""

    address: str
    consents: Sequence[ConsentRow]
    suppressions: Sequence[HeldBySuppression]


def record_given(context: AppContext, given: Sequence[GivenConsent], *, by: str) -> RecordedConsents:
    """Record consents. Idempotent: one recipient, audience, time and source is one consent.

    It adds no recipient to an audience, and lifts no suppression.

    Args:
        context: The open parts.
        given: The consents, at most `MAX_CONSENTS`.
        by: Who records them.

    Returns:
        What was done. Consents that are not valid are refused, and the others are recorded.
    """
    now = context.clock.now()
    faults: list[RowFault] = []
    valid: list[NewConsent] = []
    with write(context.engine) as connection:
        audiences = audience_ids(connection)
        for index, consent in enumerate(given):
            try:
                valid.append(_checked(consent, audiences, now))
            except FieldError as error:
                faults.append(RowFault(index=index, field=error.field, message=error.message))
        acquire_import_lock(connection)
        recorded = record_consents(connection, valid, by, now)
    return RecordedConsents(recorded=recorded, known=len(valid) - recorded, faults=tuple(faults))


def _checked(consent: GivenConsent, audiences: Mapping[str, int], now: datetime) -> NewConsent:
    if consent.audience not in audiences:
        raise FieldError("audience", "there is no audience of this name")
    if consent.given_at > now + _CLOCK_SKEW:
        raise FieldError("given_at", "it is in the future")
    address = checked_address(consent.address, "address")
    source = _text("source", consent.source, MAX_SOURCE_CHARACTERS)
    if source is None:
        raise FieldError("source", "it is empty", remedy="Write where the recipient asked: a URL, an event.")
    return NewConsent(
        address=address,
        domain=domain_of(address),
        audience_id=audiences[consent.audience],
        given_at=consent.given_at,
        source=source,
        ip=_ip(consent.ip),
        wording=_text("wording", consent.wording, MAX_WORDING_CHARACTERS),
        confirmation=_text("confirmation", consent.confirmation, MAX_SOURCE_CHARACTERS),
    )


def _text(field: str, value: str, max_characters: int) -> str | None:
    text = value.strip()
    if len(text) > max_characters:
        raise FieldError(field, f"it has more than {max_characters:,} characters")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise FieldError(field, "it contains a character that no database stores")
    return text or None


def _ip(value: str) -> str | None:
    text = value.strip()
    try:
        return str(ip_address(text)) if text else None
    except ValueError:
        raise FieldError("ip", "it is not an IPv4 or IPv6 address") from None


def prove(context: AppContext, address: str) -> ConsentProof:
    """Return what shows that a recipient asked for mail. The newest `MAX_CONSENTS` consents are listed.

    Args:
        context: The open parts.
        address: Address of the recipient.

    Returns:
        The consents, and the suppressions that hold.

    Raises:
        FieldError: It is not an address.
        StateError: No recipient has it, or no consent of the recipient is known.
    """
    address = checked_address(address, "address")
    with read(context.engine) as connection:
        recipient = recipient_of_address(connection, address)
        if recipient is None or recipient.id is None:
            raise StateError(
                f"no recipient has the address {address}",
                remedy="Check its spelling. `postroad permission record` records a consent.",
                missing=True,
            )
        consents = consents_of_recipient(connection, recipient.id, before=LAST_ID, limit=MAX_CONSENTS)
        if not consents:
            raise StateError(
                f"no consent of {address} is known",
                remedy="`postroad permission record` records one. An import names its file and line.",
            )
        suppressions = holding_suppressions(context, connection, address)
    return ConsentProof(address=address, consents=consents, suppressions=suppressions)


def holding_suppressions(context: AppContext, connection: sa.Connection, address: str) -> list[HeldBySuppression]:
    """Return the suppressions that hold mail to a normalised address: of it, of its hash and of its domain."""
    keys = [*stored_keys(context, [address]), f"@{domain_of(address)}"]
    held, _ = suppressions_with_keys(connection, keys)
    return [
        HeldBySuppression(
            reason=row.reason,
            audience=None if row.audience_id == EVERYWHERE else audience_name(connection, row.audience_id),
            source=row.source,
            since=row.created_at,
        )
        for row in held
    ]
