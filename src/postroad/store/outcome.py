"""Outcomes of delivery by sender and mailbox provider, for metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import sqlalchemy as sa

from postroad.store.bulk import json_rows
from postroad.store.ledger import SENDER_OF_TOUCH

OUTCOME_COLUMNS = "campaign_id, sender_id, provider"
"""Columns of a row that counts as traffic: see `postroad.store.traffic`."""

OUTCOME_VALUES = f"touch.campaign_id, {SENDER_OF_TOUCH}, COALESCE(mail_domain.provider, 'other')"
"""SQL expressions of `OUTCOME_COLUMNS`, in a statement with `OUTCOME_TABLES`."""

# CROSS JOIN: SQLite keeps this order, which begins with the touch.
OUTCOME_TABLES = (
    "touch CROSS JOIN campaign CROSS JOIN recipient LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
    "WHERE campaign.id = touch.campaign_id AND recipient.id = touch.recipient_id"
)
"""FROM items of `OUTCOME_VALUES`, with the WHERE that joins them. The caller adds which touch."""


class DeliveryOutcome(StrEnum):
    """The result of one attempt, or of a mail that was returned later."""

    ACCEPTED = "accepted"
    BOUNCED = "bounced"
    DEFERRED = "deferred"
    DEAD = "dead"
    UNKNOWN = "unknown"
    COMPLAINED = "complained"


class TouchOutcome(NamedTuple):
    """One outcome of one touch."""

    touch_id: int
    outcome: DeliveryOutcome


class Destination(NamedTuple):
    """A sender, a domain and an outcome. ``provider``: from the last DNS lookup; None: not known."""

    sender: str
    domain: str
    provider: str | None
    outcome: DeliveryOutcome


def count_outcomes(connection: sa.Connection, outcomes: Sequence[TouchOutcome]) -> Mapping[Destination, int]:
    """Count outcomes by sender, domain and outcome. A touch that the ledger does not have is skipped."""
    rows = [{"id": touch_id, "outcome": outcome.value} for touch_id, outcome in outcomes]
    item, parameters = json_rows(connection, "batch", {"id": sa.BigInteger(), "outcome": sa.Text()}, rows)
    statement = sa.text(
        f"SELECT sender.address, recipient.domain, mail_domain.provider, batch.outcome, count(*) FROM {item} "
        "JOIN touch ON touch.id = batch.id JOIN campaign ON campaign.id = touch.campaign_id "
        f"JOIN sender ON sender.id = {SENDER_OF_TOUCH} JOIN recipient ON recipient.id = touch.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        "GROUP BY sender.address, recipient.domain, mail_domain.provider, batch.outcome"
    )
    return {
        Destination(sender, domain, provider, DeliveryOutcome(outcome)): count
        for sender, domain, provider, outcome, count in connection.execute(statement, parameters)
    }
