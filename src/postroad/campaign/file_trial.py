"""What a launch would import from the file of an audience, read before it is imported. Nothing is kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from postroad.campaign.csv_file import open_csv
from postroad.campaign.intake import decode_json, judge
from postroad.campaign.trial import StepTrial
from postroad.store.engine import read
from postroad.store.recipient import NewRecipient

_ROWS: Final = 1_000


@dataclass(kw_only=True)
class FileTrial:
    """What a file would bring to an audience.

    ``zones``: new members who would get mail, by their time zone. ``suppressed``: new members who would not.
    ``known``: hashes of all its addresses. ``tried``: recipients whose renderings were tried.
    """

    rows: int = 0
    refused: int = 0
    suppressed: int = 0
    tried: int = 0
    zones: Counter[str | None] = field(default_factory=Counter)
    known: set[int] = field(default_factory=set)

    @property
    def new(self) -> int:
        return self.zones.total() + self.suppressed


def try_file(
    engine: sa.Engine,
    audience_id: int,
    path: Path,
    trials: Sequence[StepTrial],
    *,
    budget_s: float,
    progress: Callable[[int, int], None] | None = None,
) -> FileTrial:
    """Validate the rows of a file, count who would get mail, and show the recipients to trials.

    A recipient that the database has keeps the merge fields that the file does not name, as in an import. Of several
    rows of one address that are far apart, the first is tried.

    Args:
        engine: The database.
        audience_id: The audience.
        path: The CSV.
        trials: One for each step.
        budget_s: Processor time after which recipients are only counted, in seconds.
        progress: Is called with the number of bytes that were read, and with that of all.

    Raises:
        DataError: The file cannot be read, or is not a CSV of recipients.
    """
    found, begun = FileTrial(), time.thread_time()
    with open_csv(path) as file:
        size, rows = path.stat().st_size, iter(file)
        while (judged := judge(file.columns, islice(rows, _ROWS))).rows:
            found.rows += judged.rows
            found.refused += len(judged.refused)
            new = [person for person in judged.taken if hash(person[0]) not in found.known]
            found.known.update(hash(person[0]) for person in new)
            in_time = time.thread_time() - begun <= budget_s
            _look_at(engine, audience_id, new, trials if in_time else (), found)
            found.tried += len(new) if in_time else 0
            if progress is not None:
                progress(min(file.place.cursor, size), size)
    return found


def _look_at(
    engine: sa.Engine, audience_id: int, people: Sequence[NewRecipient], trials: Sequence[StepTrial], found: FileTrial
) -> None:
    addresses = [address for address, *_ in people]
    with read(engine) as connection:
        stored = {
            row.address: row
            for row in connection.execute(_STORED, {"audience_id": audience_id, "addresses": addresses})
        }
        keys = [*addresses, *{f"@{domain}" for _, domain, *_ in people}]
        suppressed = set(connection.execute(_SUPPRESSED, {"audience_id": audience_id, "keys": keys}).scalars())
    for address, domain, own_zone, written in people:
        attributes, zone, known = decode_json(written), own_zone, stored.get(address)
        if known is not None:
            attributes = known.attributes | attributes
            zone = zone or known.time_zone
        for trial in trials:
            trial.look_at(address, attributes)
        if known is not None and known.member:
            continue
        if address in suppressed or f"@{domain}" in suppressed:
            found.suppressed += 1
        else:
            found.zones[zone] += 1


_STORED = (
    sa.text(
        "SELECT address, time_zone, attributes, EXISTS (SELECT 1 FROM audience_member "
        "WHERE audience_id = :audience_id AND recipient_id = recipient.id) AS member "
        "FROM recipient WHERE address IN :addresses"
    )
    .bindparams(sa.bindparam("addresses", type_=sa.Text(), expanding=True))
    .columns(
        sa.column("address", sa.Text()),
        sa.column("time_zone", sa.Text()),
        sa.column("attributes", sa.JSON()),
        sa.column("member", sa.Boolean()),
    )
)
_SUPPRESSED = sa.text(
    "SELECT address FROM suppression WHERE address IN :keys AND audience_id IN (0, :audience_id)"
).bindparams(sa.bindparam("keys", type_=sa.Text(), expanding=True))
