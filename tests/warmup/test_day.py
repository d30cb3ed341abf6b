"""Days are closed from the ledger and decided once, no matter when and how often the task runs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa

from postroad.settings import Settings
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason, suppress
from postroad.store.warmup import WarmupDayRow, days_of, overrides_of
from postroad.warmup.day import close_day, set_cap
from postroad.warmup.decide import Move
from postroad.warmup.identity import WarmingIdentity, identities, identities_by_sender, of_sender
from postroad.warmup.status import markdown, planned_caps, warmup_statuses
from tests.warmup.conftest import NEWS, OFFERS, SETTINGS, Load, Mail

DAY = date(2026, 5, 4)
NOON = datetime(2026, 5, 4, 10, tzinfo=UTC)  # in Berlin
ONE = timedelta(days=1)


@pytest.fixture
def settings(load: Load) -> Settings:
    return load(SETTINGS)


@pytest.fixture
def address(settings: Settings) -> WarmingIdentity:
    return of_sender(settings, "news")[0]


def rows(engine: sa.Engine, identity: str = NEWS) -> list[WarmupDayRow]:
    with read(engine) as connection:
        return days_of(connection, [identity], since=date(2026, 1, 1))


def short(found: Sequence[WarmupDayRow]) -> list[tuple[str, int, int, str]]:
    return [(row.provider, (row.day - DAY).days, row.cap, row.move) for row in found]


def test_a_provider_begins_with_the_first_mail_to_it(engine: sa.Engine, address: WarmingIdentity, mail: Mail) -> None:
    assert close_day(engine, address, NOON) == []
    mail.accepted(NOON, 50)
    mail.accepted(NOON + ONE, 20, domain="yahoo.com")
    mail.accepted(NOON + ONE, 70, domain="rare.example")
    assert short(close_day(engine, address, NOON + ONE)) == [
        ("google", 1, 74, "grow"),
        ("other", 1, 50, "start"),
        ("yahoo", 1, 50, "start"),
    ]


def test_a_day_is_that_of_the_zone(engine: sa.Engine, address: WarmingIdentity, mail: Mail) -> None:
    mail.accepted(datetime(2026, 5, 4, 21, 59, tzinfo=UTC), 30)
    mail.accepted(datetime(2026, 5, 4, 22, 1, tzinfo=UTC), 20)  # one minute past midnight in Berlin
    close_day(engine, address, NOON + ONE)
    assert [row.accepted for row in rows(engine)] == [30, 20]


def test_outcomes_of_mail_are_counted_separately(engine: sa.Engine, address: WarmingIdentity, mail: Mail) -> None:
    mail.accepted(NOON, 40)
    hard = {"reply_code": 550, "cause": "no such mailbox", "blame": "recipient"}
    mail.came_to(NOON, TouchState.BOUNCED, 3, **hard)  # type: ignore[arg-type]
    mail.came_to(NOON, TouchState.BOUNCED, 5, reply_code=552, cause="mailbox full", blame="recipient")
    mail.came_to(NOON, TouchState.DEAD, 2, reply_code=550, cause="sender refused", blame="sender")
    mail.came_to(NOON, TouchState.DEFERRED, 7, reply_code=451, cause="greylisted", blame="host")
    mail.came_to(NOON, TouchState.UNKNOWN, 1, cause="connection lost after the final dot", blame="host")
    # Never reached a receiver:
    mail.came_to(NOON, TouchState.DEFERRED, 100, cause="route down", blame="us")
    mail.came_to(NOON, TouchState.DEAD, 100, cause="template", blame="message")
    mail.came_to(NOON, TouchState.EXPIRED, 100)
    mail.accepted(NOON, 100, sender="another@example.com")
    with write(engine) as connection:
        who = connection.execute(
            sa.text("SELECT address FROM recipient WHERE domain = 'gmail.com' ORDER BY id LIMIT 1")
        ).scalar_one()
        suppress(connection, [who], SuppressionReason.COMPLAINT, "feedback loop", NOON)
    [row] = close_day(engine, address, NOON)
    counts = (row.attempts, row.accepted, row.bounced, row.complained, row.deferred, row.blocked)
    assert counts == (58, 40, 3, 1, 7, 2)


def test_closing_a_day_twice_decides_once(engine: sa.Engine, address: WarmingIdentity, mail: Mail) -> None:
    mail.accepted(NOON, 50)
    first = close_day(engine, address, NOON + ONE)
    mail.accepted(NOON + ONE, 60)
    # Late outcomes change the counts, but no decision.
    mail.came_to(NOON, TouchState.BOUNCED, 40, reply_code=550, cause="no such mailbox", blame="recipient")
    second = close_day(engine, address, NOON + ONE + timedelta(hours=5))
    assert [(r.cap, r.move, r.reason, r.decided_at) for r in first] == [
        (r.cap, r.move, r.reason, r.decided_at) for r in second
    ]
    assert [(r.bounced, r.accepted) for r in rows(engine)] == [(40, 50), (0, 60)]


def test_concurrent_runs_decide_once(engine: sa.Engine, address: WarmingIdentity, mail: Mail) -> None:
    mail.accepted(NOON, 50)
    with ThreadPoolExecutor(4) as pool:
        nows = [NOON + ONE + timedelta(seconds=n) for n in range(4)]
        found = list(pool.map(lambda now: close_day(engine, address, now), nows))
    assert len({tuple((r.cap, r.decided_at) for r in each) for each in found}) == 1


def test_missed_days_are_recorded_and_skip_no_growth_step(
    engine: sa.Engine, address: WarmingIdentity, mail: Mail
) -> None:
    mail.accepted(NOON, 50)
    close_day(engine, address, NOON)
    for n in range(1, 12):
        mail.accepted(NOON + n * ONE, 50)  # the cap held, and was used up
    close_day(engine, address, NOON + 12 * ONE)
    found = short(rows(engine))
    assert found[0] == ("google", 0, 50, "start")
    assert found[1:12] == [("google", n, 50, "missed") for n in range(1, 12)]
    assert found[12] == ("google", 12, 74, "grow")
    assert all(row.accepted == 50 for row in rows(engine)[:12])


def test_a_pause_is_kept_with_its_reason(engine: sa.Engine, address: WarmingIdentity, mail: Mail) -> None:
    mail.accepted(NOON, 160)
    mail.came_to(NOON, TouchState.DEAD, 40, reply_code=550, cause="sender refused", blame="sender")
    now = NOON + ONE
    [row] = close_day(engine, address, now)
    assert (row.move, row.cap, row.paused_until) == (Move.PAUSE, 12, now + ONE)
    assert "blocks are 20.00% (40 of 200)" in row.reason


def test_nothing_is_decided_before_the_start(engine: sa.Engine, load: Load, mail: Mail) -> None:
    identity = of_sender(load(SETTINGS + "start = 2026-05-06\n"), "news")[0]
    mail.accepted(NOON, 50)
    assert close_day(engine, identity, NOON + ONE) == []
    assert [row.cap for row in close_day(engine, identity, NOON + 2 * ONE)] == [50]


def test_an_override_holds_from_now_on_and_says_who_and_why(
    engine: sa.Engine, address: WarmingIdentity, mail: Mail
) -> None:
    mail.accepted(NOON, 160)
    mail.came_to(NOON, TouchState.DEAD, 40, reply_code=550, cause="sender refused", blame="sender")
    now = NOON + ONE
    close_day(engine, address, now)
    set_cap(engine, address, "google", 500, by="ada", why="the list was cleaned", now=now)
    [row] = close_day(engine, address, now + timedelta(hours=1))
    assert (row.cap, row.move, row.paused_until) == (500, "override", None)
    assert row.reason == "set by ada: the list was cleaned"
    with read(engine) as connection:
        [kept] = overrides_of(connection, [NEWS])
    assert (kept.provider, kept.cap, kept.by, kept.why, kept.at) == ("google", 500, "ada", "the list was cleaned", now)
    mail.accepted(now, 480)
    assert [(r.cap, r.move) for r in close_day(engine, address, now + ONE)] == [(716, "grow")]


def test_mail_of_senders_that_share_a_domain_counts_together(engine: sa.Engine, load: Load, mail: Mail) -> None:
    settings = load(SETTINGS + OFFERS)
    by_name = {identity.name: identity for identity in identities(settings)}
    mail.accepted(NOON, 50)
    mail.accepted(NOON, 30, sender="offers@example.com")
    assert {
        name: [row.attempts for row in close_day(engine, identity, NOON)] for name, identity in by_name.items()
    } == {
        NEWS: [50],
        "offers@example.com": [30],
        "example.com": [80],
        "192.0.2.7": [30],
    }


def test_one_gate_holds_for_identities_with_the_same_senders(load: Load) -> None:
    assert identities_by_sender(load(SETTINGS)) == {NEWS: (NEWS,)}
    assert identities_by_sender(load(SETTINGS + OFFERS)) == {
        NEWS: (NEWS, "example.com"),
        "offers@example.com": ("offers@example.com", "example.com"),
    }


def test_the_first_day_shows_cap_used_and_waiting_messages(
    engine: sa.Engine, address: WarmingIdentity, mail: Mail
) -> None:
    mail.accepted(NOON - ONE, 7, domain="yahoo.com")
    mail.accepted(NOON, 3)
    mail.waits(2)
    mail.waits(4, domain="rare.example")
    found = {each.provider: each for each in warmup_statuses(engine, [address], NOON)}
    assert {name: (each.today.cap, each.used, each.waiting) for name, each in found.items()} == {
        "google": (50, 3, 2),
        "other": (50, 0, 4),
    }
    assert {(each.today.move, each.late) for each in found.values()} == {(Move.START, False)}
    assert "| news@example.com | google | 50 | 50 | 3 | 2 | start | the first day |" in markdown(
        "news", [*found.values()]
    )


def test_the_page_of_a_run_shows_caps_reasons_and_the_curve(
    engine: sa.Engine, settings: Settings, address: WarmingIdentity, mail: Mail
) -> None:
    mail.accepted(NOON, 50)
    close_day(engine, address, NOON + ONE)
    text = markdown("news", warmup_statuses(engine, [address], NOON + ONE))
    assert "| news@example.com | google | 74 | 74 | 0 | 0 | grow | 50 of 50 delivered the day before | 50 |" in text
    assert "█" in text
    [status] = warmup_statuses(engine, [address], NOON + 2 * ONE)
    assert status.late
    assert "decided 2026-05-05" in markdown("news", [status])
    unsent = markdown("news", [], planned_caps([address]))
    assert "Nothing was sent yet" in unsent
    assert [line.split()[:2] for line in unsent.splitlines() if "█" in line][:2] == [
        ["1", str(planned_caps([address])[0])],
        ["2", str(planned_caps([address])[1])],
    ]
