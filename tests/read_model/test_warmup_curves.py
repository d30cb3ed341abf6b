"""Curves of warmups: their days with the plan, the mail of today by the identity's own midnight, and overrides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from postroad.read_model.warmups import WarmupCurve, warmups
from postroad.settings import WarmupSettings
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.reputation import ReputationDay, ReputationSource, save_reputation
from postroad.warmup.day import close_day, set_cap
from postroad.warmup.identity import WarmingIdentity
from postroad.warmup.plan import plan_for
from tests.store.outcomes import add_provider, add_sent_touches, record_outcome

S = TouchState
NOON = datetime(2026, 5, 4, 10, tzinfo=UTC)


def identity(name: str = "news@example.com", zone: str = "UTC", **values: object) -> WarmingIdentity:
    senders = ("news@example.com",)
    return WarmingIdentity(name=name, senders=senders, warmup=WarmupSettings(), zone=ZoneInfo(zone), **values)  # type: ignore[arg-type]


def add_mail(engine: sa.Engine, *mail: tuple[TouchState, datetime], domain: str = "one.example") -> None:
    with write(engine) as connection:
        add_provider(connection, "one.example", "google")
        for touch, (state, at) in zip(add_sent_touches(connection, domain, len(mail)), mail, strict=True):
            record_outcome(connection, touch, state, at, reply_code=250 if state is S.ACCEPTED else 450)


def curves(engine: sa.Engine, *identities: WarmingIdentity, now: datetime = NOON) -> list[WarmupCurve]:
    with read(engine) as connection:
        return warmups(connection, identities, now)


def test_without_a_decided_day_there_is_no_curve(engine: sa.Engine) -> None:
    add_mail(engine, (S.ACCEPTED, NOON))
    assert curves(engine) == []
    assert curves(engine, identity()) == []


def test_each_provider_has_its_days_with_the_plan(engine: sa.Engine) -> None:
    for days in (3, 2, 1):
        at = NOON - timedelta(days=days)
        add_mail(engine, *[(S.ACCEPTED, at)] * 50)
        add_mail(engine, (S.ACCEPTED, at), domain="two.example")
        close_day(engine, identity(), at + timedelta(days=1))
    google, other = curves(engine, identity())
    assert (google.status.provider, other.status.provider) == ("google", "other")
    assert [day.day.day.day for day in google.status.days] == [1, 2, 3, 4]
    assert [day.planned for day in google.status.days[:2]] == list(
        islice(plan_for(identity().warmup, "google").caps(), 2)
    )
    assert google.status.today.cap > other.status.today.cap == 50, "nothing grows that was not used"
    assert not google.status.late
    assert (google.sent_today, other.sent_today) == (0, 0)


@pytest.mark.parametrize(
    ("zone", "counted"),
    [("UTC", 4), ("Asia/Tokyo", 5), ("America/Los_Angeles", 3)],
)
def test_mail_of_today_counts_from_midnight_of_the_identity(engine: sa.Engine, zone: str, counted: int) -> None:
    add_mail(
        engine,
        (S.ACCEPTED, NOON),
        (S.BOUNCED, NOON - timedelta(hours=1)),
        (S.UNKNOWN, NOON - timedelta(minutes=5)),
        (S.DEFERRED, NOON - timedelta(minutes=5)),
        (S.ACCEPTED, NOON - timedelta(hours=5)),
        (S.ACCEPTED, NOON - timedelta(hours=14)),
        (S.ACCEPTED, NOON - timedelta(hours=22)),
    )
    now = NOON + timedelta(minutes=1)
    close_day(engine, identity(zone=zone), now)
    [curve] = curves(engine, identity(zone=zone), now=now)
    assert curve.sent_today == counted


def test_a_day_of_25_hours_counts_whole(engine: sa.Engine) -> None:
    berlin = identity(zone="Europe/Berlin")
    midnight = datetime(2026, 10, 25, tzinfo=ZoneInfo("Europe/Berlin"))
    end = datetime(2026, 10, 25, 23, 50, tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC)
    add_mail(engine, (S.ACCEPTED, midnight.astimezone(UTC) + timedelta(minutes=10)), (S.ACCEPTED, end))
    close_day(engine, berlin, end)
    [curve] = curves(engine, berlin, now=end + timedelta(minutes=1))
    assert curve.sent_today == 2


def test_overrides_and_reports_are_those_of_the_identity_and_provider(engine: sa.Engine) -> None:
    ours = identity(known_as=("example.com",))
    domain = identity(name="example.com", known_as=("example.com",))
    for each, provider, cap in ((ours, "google", 700), (ours, "yahoo", 80), (domain, "google", 900)):
        set_cap(engine, each, provider, cap, by="ada", why="agreed", now=NOON)
    reports = [
        ReputationDay(
            source=ReputationSource.POSTMASTER,
            subject=subject,
            provider="google",
            day=NOON.date() - timedelta(days=days),
            spam_rate=0.001,
            imported_at=NOON,
        )
        for subject, days in (("example.com", 1), ("example.com", 2), ("example.com", 60), ("other.dev", 1))
    ]
    with write(engine) as connection:
        save_reputation(connection, reports)
    found = {(each.status.identity, each.status.provider): each for each in curves(engine, ours, domain)}
    assert {pair: [one.cap for one in each.overrides] for pair, each in found.items()} == {
        ("example.com", "google"): [900],
        ("news@example.com", "google"): [700],
        ("news@example.com", "yahoo"): [80],
    }
    assert [report.day.day for report in found["news@example.com", "google"].status.reported] == [2, 3]
    assert found["news@example.com", "yahoo"].status.reported == []
