"""Reads and writes single recipients, and adds members to audiences, as programs do.

A file is imported by `postroad.campaign.audience`. Both write recipients by the same functions, so a member of either
origin is one for every campaign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from postroad.app.context import AppContext
from postroad.app.message_order import FieldError, checked_address, require_fields, require_types
from postroad.errors import StateError
from postroad.field_types import FieldType
from postroad.mail.address import domain_of
from postroad.settings.types import time_zones
from postroad.store.engine import read, write
from postroad.store.message_request import json_text
from postroad.store.person_history import Membership, memberships, recipient_of_address
from postroad.store.program_import import count_members, open_program_import, record_rows
from postroad.store.recipient import (
    ImportRef,
    NewRecipient,
    Recipient,
    acquire_import_lock,
    find_audience,
    insert_recipient,
    mark_overtaken,
    set_attributes,
    upsert_recipients,
)

MAX_MEMBERS: Final = 1_000
"""Members that one call adds, in one transaction."""


@dataclass(frozen=True, kw_only=True)
class KnownRecipient:
    """A recipient, and the audiences that contain the recipient."""

    recipient: Recipient
    memberships: Sequence[Membership]


@dataclass(frozen=True, kw_only=True)
class GivenMember:
    """A member as a program gives it. ``time_zone`` None: it is not changed."""

    address: str
    time_zone: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RowFault:
    """A row of a call that was refused: its index, its field and the reason."""

    index: int
    field: str
    message: str


@dataclass(frozen=True, kw_only=True)
class AddedMembers:
    """What a call did. ``known``: members before, whose fields were updated."""

    added: int
    known: int
    faults: tuple[RowFault, ...]


def get_recipient(context: AppContext, address: str) -> KnownRecipient:
    """Return the recipient with an address.

    Raises:
        FieldError: It is not an address.
        StateError: No recipient has it.
    """
    address = checked_address(address, "address")
    with read(context.engine) as connection:
        recipient = recipient_of_address(connection, address)
        if recipient is None or recipient.id is None:
            raise StateError(f"no recipient has the address {address}", missing=True)
        return KnownRecipient(recipient=recipient, memberships=memberships(connection, recipient.id))


def put_recipient(context: AppContext, given: GivenMember) -> KnownRecipient:
    """Insert a recipient, or replace the time zone and all merge fields of a known one.

    It adds the recipient to no audience, so no campaign reaches the recipient for that.

    Args:
        context: The open parts.
        given: The recipient.

    Returns:
        The recipient.

    Raises:
        FieldError: The address, the time zone or a field is not valid. Fields have the types that the recipient's
            audiences declare.
    """
    address = checked_address(given.address, "address")
    _require_valid(given, {})
    now = context.clock.now()
    with write(context.engine) as connection:
        acquire_import_lock(connection)
        recipient_id = insert_recipient(connection, address, domain_of(address), now)
        of_recipient = memberships(connection, recipient_id)
        for membership in of_recipient:
            require_types(given.fields, context.settings.field_types(membership.audience))
        set_attributes(connection, recipient_id, given.time_zone, _attributes(given.fields))
        recipient = recipient_of_address(connection, address)
        assert recipient is not None  # noqa: S101  (inserted above)
        return KnownRecipient(recipient=recipient, memberships=of_recipient)


def add_members(context: AppContext, audience: str, given: Sequence[GivenMember], *, by: str) -> AddedMembers:
    """Add recipients to an audience. Their merge fields are added to those that they have, as by an import.

    Args:
        context: The open parts.
        audience: Name of the audience, which must exist.
        given: The recipients, at most `MAX_MEMBERS`. Of several with one address, the last value of a field is used.
        by: Who adds them; kept as their source.

    Returns:
        What was done. Rows that are not valid are refused, and the others are added.

    Raises:
        StateError: There is no such audience.
    """
    types, now = context.settings.field_types(audience), context.clock.now()
    faults: list[RowFault] = []
    valid: dict[str, NewRecipient] = {}
    fields: dict[str, dict[str, str]] = {}
    for index, member in enumerate(given):
        try:
            address = checked_address(member.address, "address")
            _require_valid(member, types)
        except FieldError as error:
            faults.append(RowFault(index=index, field=error.field, message=error.message))
            continue
        fields[address] = fields.get(address, {}) | _attributes(member.fields)
        zone = member.time_zone or (valid[address][2] if address in valid else None)
        valid[address] = (address, domain_of(address), zone, json_text(fields[address]), None)
    with write(context.engine) as connection:
        audience_id = find_audience(connection, audience)
        acquire_import_lock(connection)
        import_id = open_program_import(connection, audience_id, by, now)
        rows = [valid[address] for address in sorted(valid)]
        known = count_members(connection, audience_id, sorted(valid))
        upsert_recipients(connection, rows, ImportRef(audience_id, import_id), now)
        added = len(rows) - known
        record_rows(connection, import_id, imported=added, duplicates=known)
        mark_overtaken(connection, import_id)
    return AddedMembers(added=added, known=known, faults=tuple(faults))


def _require_valid(given: GivenMember, types: Mapping[str, FieldType]) -> None:
    if given.time_zone is not None and given.time_zone not in time_zones():
        raise FieldError("time_zone", "it is not a time zone of the IANA database", remedy="Write it as Europe/Berlin.")
    require_fields(given.fields)
    require_types(given.fields, types)


def _attributes(fields: Mapping[str, str]) -> dict[str, Any]:
    return {name: value.strip() for name, value in fields.items() if value.strip()}
