"""Warmups: the mail of today is that of an identity's senders, since midnight in its zone."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from postroad.read_model.warmups import warmups
from postroad.settings import WarmupSettings
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.warmup import WarmupDayRow, save_days
from postroad.warmup.day import day_of
from postroad.warmup.identity import WarmingIdentity
from tests.store.effort import effort_of
from tests.store.outcomes import add_provider, add_sent_touches, record_outcome
from tests.store.rows import NOW

S = TouchState
ADA, BOB = "ada@example.com", "bob@example.com"


def identity(name: str, *senders: str, zone: str = "UTC") -> WarmingIdentity:
    warmup = WarmupSettings.model_validate({"opens": "09:00", "closes": "21:00"})
    return WarmingIdentity(name=name, senders=senders, warmup=warmup, zone=ZoneInfo(zone))


def begin_warmups(connection: sa.Connection, *identities: WarmingIdentity) -> None:
    rows = [
        WarmupDayRow(
            identity=each.name,
            provider="google",
            day=day_of(each, NOW),
            cap=50,
            move="start",
            reason="test",
            decided_at=NOW,
        )
        for each in identities
    ]
    save_days(connection, rows)


def send(connection: sa.Connection, address: str, *hours_ago: float, state: TouchState = S.ACCEPTED) -> None:
    """Record outcomes of a campaign from an address, at Google."""
    touches = add_sent_touches(connection, "one.example", len(hours_ago))
    newest = "(SELECT max(id) FROM sender)"
    connection.execute(sa.text(f"UPDATE sender SET address = :address WHERE id = {newest}"), {"address": address})
    for touch, hours in zip(touches, hours_ago, strict=True):
        record_outcome(connection, touch, state, NOW - timedelta(hours=hours))


def test_mail_of_today_is_that_of_the_identitys_senders_since_midnight_in_its_zone(engine: sa.Engine) -> None:
    utc, tokyo = identity(ADA, ADA), identity(BOB, BOB, zone="Asia/Tokyo")
    both = identity("example.com", ADA, BOB)
    with write(engine) as connection:
        add_provider(connection, "one.example", "google")
        begin_warmups(connection, utc, tokyo, both)
        send(connection, ADA, 0.1, 0.2, 30)
        send(connection, ADA, 0.1, state=S.DEFERRED)  # It is sent again, and counts then.
        send(connection, BOB, 0.1)
        send(connection, BOB, 0.3, 10, 40)  # Ten hours ago it was yesterday by UTC.
        send(connection, "else@example.com", 0.1)
        found = {curve.status.identity: curve.sent_today for curve in warmups(connection, [utc, tokyo, both], NOW)}
    assert found == {ADA: 2, BOB: 3, "example.com": 4}


def test_identities_of_one_zone_share_the_reading_of_the_counts(engine: sa.Engine) -> None:
    with write(engine) as connection:
        add_provider(connection, "one.example", "google")
        for n in range(12):
            send(connection, f"s{n}@example.com", *(0.1 * k for k in range(12)))
    efforts = []
    for number in (1, 12):
        chosen = [identity(f"s{n}@example.com", f"s{n}@example.com") for n in range(number)]
        with read(engine) as connection, effort_of(connection) as effort:
            warmups(connection, chosen, NOW)
        efforts.append(effort.count)
    assert efforts[1] <= 1.5 * efforts[0] + 300
