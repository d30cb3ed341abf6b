"""Frequency caps: counts the latest messages of a recipient over all campaigns, and tells when the next one may leave.

A message counts if a server accepted it, if it is on the wire, and if its delivery is unknown. Messages of campaigns
that ignore the caps do not count. Each message obeys the cap of the class that its campaign names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any, NamedTuple

import sqlalchemy as sa

from postroad.settings.frequency import IGNORE, NORMAL
from postroad.settings.types import RateSetting
from postroad.store.bulk import any_of, id_rows
from postroad.store.ledger import WAITING, TouchState
from postroad.store.touches.transitions import states_sql
from postroad.store.types import UtcDateTime

_SETTLED = states_sql((TouchState.ACCEPTED, TouchState.UNKNOWN))
_ON_THE_WIRE = states_sql((TouchState.SENDING,))


@dataclass(frozen=True, kw_only=True)
class FrequencyRule:
    """The caps by class, and the time for which they are evaluated."""

    caps: Mapping[str, RateSetting]
    now: datetime

    @property
    def class_sql(self) -> str:
        """SQL of the class of a campaign. The default of a campaign that names none is ``normal``, if that exists."""
        return f"COALESCE(campaign.frequency, '{NORMAL if NORMAL in self.caps else IGNORE}')"

    @property
    def allows_sql(self) -> str:
        """SQL condition on a touch and its campaign: the cap of its class lets it leave.

        A touch of a class that does not exist does not leave, so that an error in the settings removes no cap.
        """
        if not self.caps:
            return f"{self.class_sql} = '{IGNORE}'"
        cases = " ".join(
            f"WHEN :class_{n} THEN {_settled('count(*)', n)} + {_on_the_wire()} < :count_{n}"
            for n in range(len(self.caps))
        )
        return f"CASE {self.class_sql} WHEN '{IGNORE}' THEN true {cases} ELSE false END"

    def prepare(self, statement: str) -> sa.TextClause:
        """Return a statement with the parameters of the caps."""
        clause, named = sa.text(statement), set(re.findall(r":(\w+)", statement))
        for n, (name, cap) in enumerate(self.caps.items()):
            since = self.now - timedelta(milliseconds=cap.per_ms)
            known = [
                sa.bindparam(f"class_{n}", name),
                sa.bindparam(f"count_{n}", cap.count),
                sa.bindparam(f"since_{n}", since, type_=UtcDateTime()),
            ]
            clause = clause.bindparams(*(parameter for parameter in known if parameter.key in named))
        return clause


def _settled(what: str, n: int, rest: str = "") -> str:
    """Return SQL of the other messages to a touch's recipient that were settled within the span of a class."""
    return f"(SELECT {what} {_OTHERS} AND other.settled_at > :since_{n} AND other.state {_SETTLED}{rest})"


def _on_the_wire() -> str:
    return f"(SELECT count(*) {_OTHERS} AND other.settled_at IS NULL AND other.state {_ON_THE_WIRE})"


_OTHERS = (
    "FROM touch AS other JOIN campaign AS its ON its.id = other.campaign_id "
    "WHERE other.recipient_id = touch.recipient_id AND other.id <> touch.id "
    f"AND (its.frequency IS NULL OR its.frequency <> '{IGNORE}')"
)


class FrequencyHold(NamedTuple):
    """Why the caps do not let a touch leave.

    ``cap``: None if the settings do not have the class. ``skip``: the touch is passed over instead of waiting.
    ``until``: the earliest time at which it may leave; None if that depends on a message that is on the wire.
    """

    frequency_class: str
    cap: RateSetting | None
    skip: bool
    until: datetime | None

    @property
    def until_ms(self) -> int:
        """``until`` in Unix time, rounded up; 0 if it is not known."""
        return 0 if self.until is None else ceil(self.until.timestamp() * 1000)

    @property
    def cause(self) -> str:
        """Why it is held, for the ledger and for operators."""
        if self.cap is None:
            return f"no frequency class {self.frequency_class}"
        return f"over the frequency cap {self.frequency_class} ({self.cap})"


def frequency_holds(
    connection: sa.Connection, touch_ids: Sequence[int], rule: FrequencyRule
) -> dict[int, FrequencyHold]:
    """Return which of these touches the caps hold, and until when."""
    item, parameters = id_rows(connection, touch_ids)
    classes = sa.text(
        f"SELECT touch.id, {rule.class_sql} AS class, campaign.frequency_skip FROM touch "
        "JOIN campaign ON campaign.id = touch.campaign_id "
        f"WHERE touch.id {any_of(connection, f'SELECT batch.id FROM {item}')} AND {rule.class_sql} <> '{IGNORE}'"
    )
    skips: defaultdict[str, dict[int, bool]] = defaultdict(dict)
    for row in connection.execute(classes, parameters):
        skips[row[1]][row.id] = bool(row.frequency_skip)
    holds: dict[int, FrequencyHold] = {}
    for n, (name, cap) in enumerate(rule.caps.items()):
        skip = skips.pop(name, {})
        for touch_id, until in _over_cap(connection, list(skip), rule, n).items():
            holds[touch_id] = FrequencyHold(name, cap, skip[touch_id], until)
    for name, unknown in skips.items():
        holds |= {touch_id: FrequencyHold(name, None, False, None) for touch_id in unknown}
    return holds


def _over_cap(
    connection: sa.Connection, touch_ids: Sequence[int], rule: FrequencyRule, n: int
) -> dict[int, datetime | None]:
    """Return the touches that are over the cap of a class, and when the earliest message leaves its span."""
    if not touch_ids:
        return {}
    cap = list(rule.caps.values())[n]
    item, parameters = id_rows(connection, touch_ids)
    # A touch may leave when fewer than `count` messages are within the span: once the count-th newest has left it.
    nth = _settled("other.settled_at", n, f" ORDER BY other.settled_at DESC LIMIT 1 OFFSET {cap.count - 1}")
    statement = rule.prepare(
        f"SELECT touch.id, {nth} AS nth, {_settled('count(*)', n)} + {_on_the_wire()} AS sent "
        f"FROM touch WHERE touch.id {any_of(connection, f'SELECT batch.id FROM {item}')}"
    ).columns(sa.column("id", sa.Integer()), sa.column("nth", UtcDateTime()), sa.column("sent", sa.Integer()))
    span = timedelta(milliseconds=cap.per_ms)
    return {
        row.id: row.nth + span if row.nth is not None else None
        for row in connection.execute(statement, parameters)
        if row.sent >= cap.count
    }


def lock_recipients(connection: sa.Connection, touch_ids: Sequence[int], rule: FrequencyRule) -> None:
    """Serialize the admissions of messages to the same recipients until the transaction ends.

    Everything that waits for the recipients of these touches is locked, and the touches themselves, which an earlier
    claim may have put on the wire: in one statement, in the order of ids, as every other statement locks them. Of two
    transactions that admit messages to one recipient, each sees the touch of the other one, or its result. SQLite has
    one writer.
    """
    if connection.dialect.name == "sqlite" or not rule.caps:
        return
    item, parameters = id_rows(connection, touch_ids)
    claimed = any_of(connection, f"SELECT batch.id FROM {item}")
    recipients = (
        "SELECT claimed.recipient_id FROM touch AS claimed JOIN campaign ON campaign.id = claimed.campaign_id "
        f"WHERE claimed.id {claimed} AND {rule.class_sql} <> '{IGNORE}'"
    )
    statement = sa.text(
        f"SELECT touch.id FROM touch WHERE touch.id {claimed} OR (touch.recipient_id "
        f"{any_of(connection, recipients)} AND touch.settled_at IS NULL AND touch.state {states_sql(WAITING)}) "
        "ORDER BY touch.id FOR NO KEY UPDATE"
    )
    connection.execute(statement, parameters).all()


def over_cap_in_audience(
    connection: sa.Connection,
    campaign_id: int,
    rule: FrequencyRule,
    where: str = "TRUE",
    parameters: Mapping[str, Any] | None = None,
) -> int:
    """Return how many recipients in the audience of a campaign are over its cap now.

    It reads the latest messages of each of these recipients.

    Args:
        connection: A connection in a transaction.
        campaign_id: The campaign.
        rule: The frequency caps.
        where: SQL of a condition over the row ``recipient``: only those who meet it count.
        parameters: The parameters of the condition.

    Returns:
        The number of recipients.
    """
    statement = rule.prepare(
        "SELECT count(*) FROM campaign JOIN (SELECT audience_id, recipient_id, 0 AS id FROM audience_member) AS touch "
        "ON touch.audience_id = campaign.audience_id JOIN recipient ON recipient.id = touch.recipient_id "
        f"WHERE campaign.id = :campaign_id AND {where} AND NOT {rule.allows_sql}"
    )
    return int(connection.execute(statement, {"campaign_id": campaign_id, **(parameters or {})}).scalar_one())
