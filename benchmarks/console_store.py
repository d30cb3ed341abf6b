"""A store as one that has sent for a month: campaigns, messages, events, returned mail, suppressions.

The database makes the rows itself, by arithmetic on their numbers. Indexes are built at the end.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from msgspec import Struct

from benchmarks.fast_fill import fast_filling
from postroad.store.traffic import HOURS_KEPT, MINUTES_KEPT, TOTALS_KEPT, bucket_start
from postroad.store.types import sql_time

SENDERS, DOMAINS, CAMPAIGNS, STEPS, RUNNING = 4, 97, 10, 2, 3
PROVIDERS = ("google", "microsoft", "yahoo", "apple", "gmx", "ionos", "proofpoint", "other")
DAYS = 30
_CHUNK = 500_000
_LARGE = ("touch", "delivery_event", "bounce_mail", "suppression", "audience_member", "consent", "refusal")
_STATES = (
    ("accepted", 600, 965),
    ("bounced", 612, 985),
    ("dead", 614, 987),
    ("unknown", 615, 988),
    ("deferred", 640, 988),
    ("suppressed", 660, 995),
    ("sending", 661, 995),
    ("queued", 760, 995),
    ("cancelled", 762, 1_000),
    ("planned", 1_000, 1_000),
)
"""States of a thousand touches, as upper bounds: of a running campaign, and of a finished one."""
_OUTCOMES = (("accepted", 600), ("deferred", 950), ("bounced", 985), ("dead", 995), ("unknown", 1_000))


class StoreSize(Struct, frozen=True, kw_only=True):
    """Rows of the store."""

    touches: int
    events: int

    @property
    def recipients(self) -> int:
        """Each gets every email of every campaign."""
        return self.touches // (CAMPAIGNS * STEPS)


def fill_store(engine: sa.Engine, size: StoreSize, now: datetime) -> None:
    """Fill an empty, migrated database."""
    with fast_filling(engine, _LARGE) as connection:
        maker = _Maker(connection, size, now)
        maker.add_people()
        maker.add_campaigns()
        maker.add_touches()
        maker.add_events()
        maker.add_returned_mail()
    with fast_filling(engine) as connection:  # From the rows, by their indexes.
        _Maker(connection, size, now).add_counts()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE" if engine.dialect.name == "sqlite" else "VACUUM ANALYZE"))


def _cases(value: str, bounds: list[tuple[str, int]]) -> str:
    whens = " ".join(f"WHEN {value} < {bound} THEN '{name}'" for name, bound in bounds)
    return f"CASE {whens} END"


class _Maker:
    def __init__(self, connection: sa.Connection, size: StoreSize, now: datetime) -> None:
        self._connection = connection
        self._size = size
        self._now = now
        self._sqlite = connection.dialect.name == "sqlite"

    def run(self, statement: str) -> None:
        with self._connection.begin():
            self._connection.exec_driver_sql(statement if self._sqlite else statement.replace("%", "%%"))

    def _series(self, insert: str, last: int) -> None:
        """Run an INSERT … SELECT for each number n from 1 to ``last``, in chunks."""
        for first in range(1, last + 1, _CHUNK):
            end = min(first + _CHUNK - 1, last)
            if self._sqlite:
                counted = f"SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {end}"
                self.run(f"{insert} (WITH RECURSIVE s(n) AS ({counted}) SELECT n FROM s) AS s")
            else:
                self.run(f"{insert} generate_series(CAST({first} AS BIGINT), {end}) AS s(n)")

    def _ago(self, seconds: str) -> str:
        """Return SQL of a time so many seconds ago."""
        if self._sqlite:
            base = int(self._now.timestamp())
            return f"strftime('%Y-%m-%d %H:%M:%S.000000', {base} - ({seconds}), 'unixepoch')"
        return f"(TIMESTAMPTZ '{self._now.isoformat()}' - ({seconds}) * INTERVAL '1 second')"

    def _uid(self) -> str:
        """Return SQL of a unique text that sorts as the numbers: its index grows at its end."""
        return "printf('e:%012d', n)" if self._sqlite else "'e:' || lpad(n::text, 12, '0')"

    def _at(self, time: datetime) -> str:
        return f"'{sql_time(time, self._connection.dialect.name)}'"

    def add_people(self) -> None:
        at, size = self._at(self._now), self._size
        self.run(f"INSERT INTO audience (id, name, created_at) VALUES (1, 'everyone', {at})")
        self.run(
            "INSERT INTO audience_import (id, audience_id, path, sha256, current_key, rows_total, cursor, line, "
            "rows_done, imported, duplicates, refused, started_at, finished_at) "
            f"VALUES (1, 1, 'people.csv', '', 'x', {size.recipients}, 0, 1, 0, {size.recipients}, 0, 1000, {at}, {at})"
        )
        domain = f"'d' || (n % {DOMAINS}) || '.example'"
        self._series(
            "INSERT INTO recipient (id, address, domain, attributes, created_at) "
            f"SELECT n, 'r' || n || '@' || {domain}, {domain}, '{{}}', {at} FROM",
            size.recipients,
        )
        self._series(
            "INSERT INTO audience_member (audience_id, recipient_id, import_id, joined_at, joined_import_id, "
            f"joined_line) SELECT 1, n, 1, {at}, 1, n + 1 FROM",
            size.recipients,
        )
        self._series(
            "INSERT INTO consent (recipient_id, audience_id, given_at, source, wording, recorded_at, recorded_by) "
            f"SELECT n, 1, {at}, 'https://example.com/form/' || (n % 9), 'Yes, the newsletter.', {at}, 'shop' FROM",
            size.recipients,
        )
        self._series(
            "INSERT INTO refusal (import_id, line, field, value, reason) SELECT 1, n, 'address', 'x', 'none' FROM",
            1_000,
        )
        reason = "CASE n % 4 WHEN 0 THEN 'unsubscribe' WHEN 1 THEN 'complaint' ELSE 'hard_bounce' END"
        self._series(
            "INSERT INTO suppression (address, audience_id, reason, source, created_at, number) "
            f"SELECT 'gone' || n || '@else.example', 0, {reason}, 'reply', {self._ago('n % 2000000')}, n FROM",
            size.recipients,
        )
        for number in range(DOMAINS):
            provider = PROVIDERS[number % len(PROVIDERS)]
            self.run(
                "INSERT INTO mail_domain (domain, provider, site, expires_at) "
                f"VALUES ('d{number}.example', '{provider}', '{provider}', {at})"
            )

    def add_campaigns(self) -> None:
        for number in range(SENDERS):
            self.run(
                "INSERT INTO sender (id, name, address, display_name, postal_address, route) VALUES "
                f"({number + 1}, 'sender-{number}', 'news{number}@example.com', 'News', '1 High Street', 'relay')"
            )
        launched = self._at(self._now - timedelta(days=DAYS))
        for number in range(CAMPAIGNS):
            state, finished = ("running", "NULL") if number < RUNNING else ("finished", launched)
            self.run(
                "INSERT INTO campaign (id, name, state, audience_id, sender_id, job_class, time_zone, on_reply, "
                "created_at, launched_at, finished_at) VALUES "
                f"({number + 1}, 'campaign-{number}', '{state}', 1, {1 + number % SENDERS}, 'normal', 'UTC', 'stop', "
                f"{launched}, {launched}, {finished})"
            )
            for step in range(STEPS):
                self.run(
                    "INSERT INTO step (id, campaign_id, position, name, kind, settings) VALUES "
                    f"({number * STEPS + step + 1}, {number + 1}, {step + 1}, 'email-{step}', 'email', '{{}}')"
                )

    def add_touches(self) -> None:
        """Add touches by campaign, step and recipient, so that the id of one says which it is."""
        each = self._size.recipients
        place = f"((n - 1) / {each})"
        dice = "((n * 7919) % 1000)"
        running = _cases(dice, [(name, bound) for name, bound, _ in _STATES])
        over = _cases(dice, [(name, bound) for name, _, bound in _STATES])
        state = f"CASE WHEN {place} < {RUNNING * STEPS} THEN {running} ELSE {over} END"
        cause = "CASE n % 3 WHEN 0 THEN 'no-route' WHEN 1 THEN 'attempts' ELSE 'lease expired' END"
        self._series(
            "INSERT INTO touch (id, campaign_id, step_id, recipient_id, state, due_at, claim, cause, settled_at) "
            f"SELECT n, 1 + {place} / {STEPS}, 1 + {place}, 1 + (n - 1) % {each}, {state}, "
            f"{self._ago('(n % 2000000) - 100000')}, 0, "
            f"CASE WHEN {dice} BETWEEN 600 AND 1000 THEN {cause} ELSE '' END, {self._ago('n % 2000000')} FROM",
            each * CAMPAIGNS * STEPS,
        )

    def add_events(self) -> None:
        each = self._size.recipients
        touches = each * CAMPAIGNS * STEPS
        touch = f"(1 + (n * 104729) % {touches})"
        campaign = f"(1 + ({touch} - 1) / {each * STEPS})"
        domain = f"((1 + ({touch} - 1) % {each}) % {DOMAINS})"
        provider = f"CASE ({domain} % {len(PROVIDERS)}) " + " ".join(
            f"WHEN {n} THEN '{name}'" for n, name in enumerate(PROVIDERS)
        )
        outcome = _cases("((n * 7907) % 1000)", list(_OUTCOMES))
        kind = "CASE n % 3 WHEN 0 THEN 'age' WHEN 1 THEN 'load' ELSE 'rate' END"
        reply = f"'451 4.7.1 <' || n || '>: refused by ' || {kind}"
        words = "CASE n % 5 WHEN 0 THEN 'greylisted' WHEN 1 THEN 'too-fast' WHEN 2 THEN 'busy' ELSE 'full' END"
        self._series(
            "INSERT INTO delivery_event (uid, touch_id, state, at, attempt, reply_code, enhanced_code, reply, cause, "
            "campaign_id, sender_id, provider) "
            f"SELECT {self._uid()}, {touch}, {outcome}, {self._ago(f'(n * 61) % {DAYS * 86_400}')}, 1, 451, '4.7.1', "
            f"{reply}, {words}, {campaign}, 1 + ({campaign} - 1) % {SENDERS}, {provider} END FROM",
            self._size.events,
        )

    def add_returned_mail(self) -> None:
        touches = self._size.recipients * CAMPAIGNS * STEPS
        verdict = "CASE WHEN n % 20 = 0 THEN 'complaint' WHEN n % 3 = 0 THEN 'hard' ELSE 'soft' END"
        campaign = f"(1 + ((n * 31) % {touches}) / {touches // CAMPAIGNS})"
        provider = "CASE n % 3 WHEN 0 THEN 'google' WHEN 1 THEN 'microsoft' ELSE 'other' END"
        at = self._ago(f"(n * 97) % {DAYS * 86_400}")
        self._series(
            "INSERT INTO bounce_mail (digest, received_at, source, processed_at, kind, verdict, rule, matched_by, "
            "touch_id, campaign_id, sender_id, provider) "
            f"SELECT 'm' || n, {at}, 'smtp', {at}, 'dsn', {verdict}, 'rule ' || (n % 9), 'token', "
            f"1 + (n * 31) % {touches}, {campaign}, 1 + ({campaign} - 1) % {SENDERS}, {provider} FROM",
            self._size.events // 100,
        )

    def add_counts(self) -> None:
        """Fill the counts that triggers maintain, as they are after a fold."""
        self.run(
            "INSERT INTO touch_count (step_id, state, slot, touches) "
            "SELECT step_id, state, 0, count(*) FROM touch GROUP BY step_id, state"
        )
        for table, picks, counts, keys, number in (
            ("audience_member", "audience_id, joined_import_id", "audience_count", "audience_id, import_id", "members"),
            ("consent", "audience_id, source", "consent_count", "audience_id, source", "consents"),
            ("suppression", "reason", "suppression_count", "reason", "suppressions"),
        ):
            self.run(
                f"INSERT INTO {counts} ({keys}, slot, {number}) "
                f"SELECT {picks}, 0, count(*) FROM {table} GROUP BY {picks}"
            )
        hours, days = bucket_start(self._now - MINUTES_KEPT, self._now), bucket_start(self._now - HOURS_KEPT, self._now)
        receiver, minute = "sender_id, provider, campaign_id", self._cut("at", "minute")
        for grain, since, until in (("minute", hours, None), ("hour", days, hours), ("day", None, days)):
            period = " AND ".join(
                ([f"at >= {self._at(since)}"] if since else []) + ([f"at < {self._at(until)}"] if until else [])
            )
            for outcome, table, time, where in (
                ("state", "delivery_event", "at", period),
                ("'complained'", "bounce_mail", "received_at", f"verdict = 'complaint' AND {period}"),
            ):
                self.run(
                    f"INSERT INTO traffic (grain, at, outcome, {receiver}, slot, events) "
                    f"SELECT '{grain}', {self._cut(time, grain)}, {outcome}, {receiver}, 0, count(*) FROM {table} "
                    f"WHERE {where.replace('at >=', f'{time} >=').replace('at <', f'{time} <')} "
                    f"GROUP BY 2, 3, {receiver}"
                )
        self.run(
            "INSERT INTO traffic (grain, at, outcome, sender_id, provider, campaign_id, slot, events) "
            f"SELECT 'total', {minute}, state, 0, '', 0, 0, count(*) FROM delivery_event "
            f"WHERE at >= {self._at(self._now - TOTALS_KEPT)} GROUP BY 2, 3"
        )

    def _cut(self, time: str, grain: str) -> str:
        if not self._sqlite:
            return f"date_trunc('{grain}', {time}, 'UTC')"
        length, rest = {"minute": (16, ":00.000000"), "hour": (13, ":00:00.000000"), "day": (10, " 00:00:00.000000")}[
            grain
        ]
        return f"substr({time}, 1, {length}) || '{rest}'"
