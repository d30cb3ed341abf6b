"""Tries the file of an audience before it is imported: which rows are valid, and which recipients it adds."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from msgspec.structs import replace

from postroad.campaign.csv_file import open_csv, open_file
from postroad.campaign.intake import NO_TYPES, decode_json, validate_rows
from postroad.campaign.segment import Segment
from postroad.campaign.trial import StepTrial
from postroad.field_types import FieldType
from postroad.segment.holds import holds, missing_fields
from postroad.segment.load import load_person
from postroad.segment.person import Person
from postroad.store.bulk import found_sql
from postroad.store.engine import read
from postroad.store.mail_domain import known_providers
from postroad.store.members_before import MembersBefore, members_before
from postroad.store.recipient import NewRecipient, audience_name

_ROWS: Final = 1_000


@dataclass(kw_only=True)
class FileTrial:
    """Effect of a file's import on an audience.

    ``destinations``: new members who would get mail, by domain and time zone. ``suppressed``: new members who would not
    get mail.
    For a segment both count its recipients in the file, new members or not, because the file may change them.
    ``missing``: recipients without a value, by field of the condition.
    ``known``: hashes of all addresses in the file. ``met``: recipients of the segment in it. ``tried``: those of them
    whose renderings were tried. ``before``: who of the audience was a member without this import; None: all members.
    """

    rows: int = 0
    refused: int = 0
    suppressed: int = 0
    met: int = 0
    tried: int = 0
    destinations: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    known: set[int] = field(default_factory=set)
    missing: Counter[str] = field(default_factory=Counter)
    before: MembersBefore | None = None

    @property
    def zones(self) -> Counter[str | None]:
        """New members who would get mail, by their time zone."""
        zones: Counter[str | None] = Counter()
        for (_, zone), recipients in self.destinations.items():
            zones[zone] += recipients
        return zones

    @property
    def new(self) -> int:
        return self.destinations.total() + self.suppressed


def try_file(
    engine: sa.Engine,
    segment: Segment,
    path: Path,
    trials: Sequence[StepTrial],
    *,
    types: Mapping[str, FieldType] = NO_TYPES,
    budget_s: float,
    progress: Callable[[int, int], None] | None = None,
) -> FileTrial:
    """Validate the rows of a file, count the recipients who would get mail, and try to render messages for them.

    A recipient in the database keeps the merge fields that the file does not name, as in an import. Of several rows
    with one address, in different batches of rows, the first one is tried.

    Args:
        engine: The database.
        segment: The segment of the audience that the launch freezes.
        path: The CSV.
        trials: One for each step.
        types: Declared types of merge fields. Rows with other values are refused.
        budget_s: Processor time after which recipients are only counted, in seconds.
        progress: Called with the number of bytes that were read, and with the size of the file.

    Returns:
        The effect of an import.

    Raises:
        DataError: The file cannot be read, or is not a CSV of recipients.
    """
    result, begun = FileTrial(before=_members_before(engine, segment, path)), time.thread_time()
    with open_csv(path) as file:
        size, rows = path.stat().st_size, iter(file)
        while (validated := validate_rows(file.columns, islice(rows, _ROWS), types)).rows:
            result.rows += validated.rows
            result.refused += len(validated.refused)
            new = [recipient for recipient in validated.taken if hash(recipient[0]) not in result.known]
            result.known.update(hash(recipient[0]) for recipient in new)
            in_time = time.thread_time() - begun <= budget_s
            met = _try_recipients(engine, segment, new, trials if in_time else (), result)
            result.met += met
            result.tried += met if in_time else 0
            if progress is not None:
                progress(min(file.position.cursor, size), size)
    return result


def _try_recipients(
    engine: sa.Engine,
    segment: Segment,
    recipients: Sequence[NewRecipient],
    trials: Sequence[StepTrial],
    result: FileTrial,
) -> int:
    """Try recipients, and count those who would be added. Return how many of them belong to the segment."""
    tried = 0
    for each in _coming(engine, segment, recipients, result.before):
        for name in each.missing:
            result.missing[name] += 1
        if not each.met:
            continue
        tried += 1
        for trial in trials:
            trial.try_recipient(each.address, each.attributes)
        if each.is_member and segment.condition is None:
            continue
        if each.suppressed:
            result.suppressed += 1
        else:
            result.destinations[each.domain, each.time_zone] += 1
    return tried


class ComingRecipient(NamedTuple):
    """A recipient of a file, as an import would leave it.

    ``recipient_id``: None if the recipient is new. ``met``: whether the recipient belongs to the segment.
    ``missing``: fields of the condition without a value.
    """

    address: str
    domain: str
    time_zone: str | None
    attributes: dict[str, Any]
    recipient_id: int | None
    is_member: bool
    suppressed: bool
    met: bool
    missing: Sequence[str]


def first_of_file(
    engine: sa.Engine, segment: Segment, path: Path, types: Mapping[str, FieldType] = NO_TYPES
) -> list[ComingRecipient]:
    """Return the recipients of the first thousand rows of a file who would get mail after its import.

    Args:
        engine: The database.
        segment: The segment of the audience that the launch freezes.
        path: The CSV.
        types: Declared types of merge fields. Rows with other values are refused.

    Returns:
        The recipients, in order of their addresses.

    Raises:
        DataError: The file cannot be read, or is not a CSV of recipients.
    """
    with open_csv(path) as file:
        taken = validate_rows(file.columns, islice(file, _ROWS), types).taken
    return [each for each in _coming(engine, segment, taken) if each.met and not each.suppressed]


def _coming(
    engine: sa.Engine, segment: Segment, recipients: Sequence[NewRecipient], before: MembersBefore | None = None
) -> Iterator[ComingRecipient]:
    """Yield recipients of a file with the merge fields that the database has of them."""
    addresses = [address for address, *_ in recipients]
    with read(engine) as connection:
        stored = {
            row.address: row
            for row in connection.execute(_stored(before), {"audience_id": segment.audience_id, "addresses": addresses})
        }
        keys = [*addresses, *{f"@{domain}" for _, domain, *_ in recipients}]
        suppressed = set(connection.execute(_SUPPRESSED, {"audience_id": segment.audience_id, "keys": keys}).scalars())
        people = _people(connection, segment, recipients, stored)
    for address, domain, file_zone, encoded, _ in recipients:
        attributes, zone, known = decode_json(encoded), file_zone, stored.get(address)
        if known is not None:
            attributes = known.attributes | attributes
            zone = zone or known.time_zone
        met = True
        missing: tuple[str, ...] = ()
        if segment.condition is not None:
            person = replace(people[address], fields=attributes, time_zone=zone)
            missing = tuple(missing_fields(segment.condition, person))
            met = holds(segment.condition, person)
        yield ComingRecipient(
            address=address,
            domain=domain,
            time_zone=zone,
            attributes=attributes,
            recipient_id=known.id if known is not None else None,
            is_member=known is not None and known.member,
            suppressed=address in suppressed or f"@{domain}" in suppressed,
            met=met,
            missing=missing,
        )


def _people(
    connection: sa.Connection, segment: Segment, recipients: Sequence[NewRecipient], stored: Mapping[str, sa.Row[Any]]
) -> dict[str, Person]:
    """Return the recipients as the condition sees them after the import, but for their merge fields."""
    if segment.condition is None:
        return {}
    name = audience_name(connection, segment.audience_id)
    providers = known_providers(connection, {domain for _, domain, *_ in recipients})
    people: dict[str, Person] = {}
    for address, domain, *_ in recipients:
        provider = providers[domain][0] if domain in providers else None
        person = Person(now=segment.now, address=address, provider=provider)
        if segment.condition.functions and address in stored:
            person = load_person(connection, stored[address].id, segment.now, audience_id=segment.audience_id)
        memberships = {name: segment.now, **person.memberships}
        people[address] = replace(person, memberships=memberships, audience=name)
    return people


def _members_before(engine: sa.Engine, segment: Segment, path: Path) -> MembersBefore:
    with open_file(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with read(engine) as connection:
        return members_before(connection, segment.audience_id, digest)


def _stored(before: MembersBefore | None) -> sa.TextualSelect:
    """Return the statement that reads recipients by address. ``before``: which members count as such; None: all."""
    member = "audience_member WHERE audience_id = :audience_id AND recipient_id = recipient.id"
    if before is not None:
        member += f" AND {before.sql}"
    statement = sa.text(
        f"SELECT id, address, time_zone, attributes, {found_sql(member)} AS member "
        "FROM recipient WHERE address IN :addresses"
    ).bindparams(sa.bindparam("addresses", type_=sa.Text(), expanding=True))
    return statement.columns(
        sa.column("id", sa.BigInteger()),
        sa.column("address", sa.Text()),
        sa.column("time_zone", sa.Text()),
        sa.column("attributes", sa.JSON()),
        sa.column("member", sa.Boolean()),
    )


_SUPPRESSED = sa.text(
    "SELECT address FROM suppression WHERE address IN :keys AND audience_id IN (0, :audience_id)"
).bindparams(sa.bindparam("keys", type_=sa.Text(), expanding=True))
