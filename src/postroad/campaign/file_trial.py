"""Tries the file of an audience before it is imported: which rows are valid, and which recipients it adds."""

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
from postroad.campaign.intake import decode_json, validate_rows
from postroad.campaign.trial import StepTrial
from postroad.store.engine import read
from postroad.store.recipient import NewRecipient

_ROWS: Final = 1_000


@dataclass(kw_only=True)
class FileTrial:
    """Effect of a file's import on an audience.

    ``destinations``: new members who would get mail, by domain and time zone. ``suppressed``: new members who would not
    get mail.
    ``known``: hashes of all addresses in the file. ``tried``: recipients whose renderings were tried.
    """

    rows: int = 0
    refused: int = 0
    suppressed: int = 0
    tried: int = 0
    destinations: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    known: set[int] = field(default_factory=set)

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
    audience_id: int,
    path: Path,
    trials: Sequence[StepTrial],
    *,
    budget_s: float,
    progress: Callable[[int, int], None] | None = None,
) -> FileTrial:
    """Validate the rows of a file, count the recipients who would get mail, and try to render messages for them.

    A recipient in the database keeps the merge fields that the file does not name, as in an import. Of several rows
    with one address, in different batches of rows, the first one is tried.

    Args:
        engine: The database.
        audience_id: The audience.
        path: The CSV.
        trials: One for each step.
        budget_s: Processor time after which recipients are only counted, in seconds.
        progress: Called with the number of bytes that were read, and with the size of the file.

    Returns:
        The effect of an import.

    Raises:
        DataError: The file cannot be read, or is not a CSV of recipients.
    """
    result, begun = FileTrial(), time.thread_time()
    with open_csv(path) as file:
        size, rows = path.stat().st_size, iter(file)
        while (validated := validate_rows(file.columns, islice(rows, _ROWS))).rows:
            result.rows += validated.rows
            result.refused += len(validated.refused)
            new = [recipient for recipient in validated.taken if hash(recipient[0]) not in result.known]
            result.known.update(hash(recipient[0]) for recipient in new)
            in_time = time.thread_time() - begun <= budget_s
            _try_recipients(engine, audience_id, new, trials if in_time else (), result)
            result.tried += len(new) if in_time else 0
            if progress is not None:
                progress(min(file.position.cursor, size), size)
    return result


def _try_recipients(
    engine: sa.Engine,
    audience_id: int,
    recipients: Sequence[NewRecipient],
    trials: Sequence[StepTrial],
    result: FileTrial,
) -> None:
    addresses = [address for address, *_ in recipients]
    with read(engine) as connection:
        stored = {
            row.address: row
            for row in connection.execute(_STORED, {"audience_id": audience_id, "addresses": addresses})
        }
        keys = [*addresses, *{f"@{domain}" for _, domain, *_ in recipients}]
        suppressed = set(connection.execute(_SUPPRESSED, {"audience_id": audience_id, "keys": keys}).scalars())
    for address, domain, file_zone, encoded in recipients:
        attributes, zone, known = decode_json(encoded), file_zone, stored.get(address)
        if known is not None:
            attributes = known.attributes | attributes
            zone = zone or known.time_zone
        for trial in trials:
            trial.try_recipient(address, attributes)
        if known is not None and known.member:
            continue
        if address in suppressed or f"@{domain}" in suppressed:
            result.suppressed += 1
        else:
            result.destinations[domain, zone] += 1


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
