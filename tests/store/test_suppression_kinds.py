"""Whom a suppression holds for: an address, a domain or a hash, everywhere or for one audience; and lifting it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256

import pytest
import sqlalchemy as sa

from postroad.store.ending import end_suppressed
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.suppression import (
    EVERYWHERE,
    Entry,
    SuppressionReason,
    lift,
    save_suppressions,
    save_suppressions_now,
    suppressions,
)
from postroad.store.touches.sending import Claim, admit, rejected_claims
from tests.store.rows import NOW, add_audience, add_campaign, add_recipient, add_touch, touch_row

LATER = datetime(2026, 6, 1, tzinfo=UTC)


def hash_of(address: str) -> str:
    return f"#{sha256(address.encode()).hexdigest()}"


def entry(address: str, audience_id: int = EVERYWHERE) -> Entry:
    return Entry(address, SuppressionReason.MANUAL, "test", NOW, audience_id)


Kinds = Callable[[int, int], Entry]
KINDS: dict[str, tuple[Kinds, bool]] = {
    "the address": (lambda audience, other: entry("ada@mail.example.com"), True),
    "the address, for this audience": (lambda audience, other: entry("ada@mail.example.com", audience), True),
    "the address, for another audience": (lambda audience, other: entry("ada@mail.example.com", other), False),
    "the domain": (lambda audience, other: entry("@mail.example.com"), True),
    "the domain, for this audience": (lambda audience, other: entry("@mail.example.com", audience), True),
    "the domain, for another audience": (lambda audience, other: entry("@mail.example.com", other), False),
    "the domain above": (lambda audience, other: entry("@example.com"), False),
    "the hash": (lambda audience, other: entry(hash_of("ada@mail.example.com")), True),
    "the hash, for this audience": (lambda audience, other: entry(hash_of("ada@mail.example.com"), audience), True),
    "the hash, for another audience": (lambda audience, other: entry(hash_of("ada@mail.example.com"), other), False),
    "another address": (lambda audience, other: entry("bob@mail.example.com"), False),
    "another hash": (lambda audience, other: entry(hash_of("bob@mail.example.com")), False),
}


def stock(engine: sa.Engine, kind: str) -> tuple[int, int]:
    """A campaign with a touch that waits, and a suppression of this kind. Returns their ids."""
    with write(engine) as connection:
        audience, other = add_audience(connection), add_audience(connection)
        campaign, (step,) = add_campaign(connection, audience_id=audience)
        recipient = add_recipient(connection, "ada@mail.example.com")
        touch = add_touch(connection, campaign, step, TouchState.QUEUED, recipient_id=recipient)
        save_suppressions(connection, [KINDS[kind][0](audience, other)])
    return campaign, touch


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_queued_already_is_refused_by_the_one_statement(engine: sa.Engine, kind: str) -> None:
    _, touch = stock(engine, kind)
    hashed = hash_of("ada@mail.example.com")
    with write(engine) as connection:
        admitted = admit(connection, [Claim(touch, 1, (), hashed)])
        why = rejected_claims(connection, [touch], {touch: hashed})
    assert admitted == (set() if KINDS[kind][1] else {touch})
    assert bool(why[touch].suppressed) is KINDS[kind][1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_waits_ends_when_it_is_planned(engine: sa.Engine, kind: str) -> None:
    campaign, touch = stock(engine, kind)
    holds = KINDS[kind][1]
    assert end_suppressed(engine, campaign, NOW, hash_of) == int(holds)
    with read(engine) as connection:
        assert touch_row(connection, touch).state == (TouchState.SUPPRESSED if holds else TouchState.QUEUED)


def test_an_address_may_be_suppressed_for_several_audiences_and_everywhere(engine: sa.Engine) -> None:
    with write(engine) as connection:
        one, other = add_audience(connection, name="readers"), add_audience(connection, name="buyers")
    entries = [entry("a@example.com", audience) for audience in (one, other, EVERYWHERE, one)]
    assert save_suppressions_now(engine, entries) == 3
    assert save_suppressions_now(engine, entries) == 0
    assert {listed.audience for listed in suppressions(engine)} == {"readers", "buyers", None}


def test_of_a_list_that_says_it_twice_the_first_reason_stays(engine: sa.Engine) -> None:
    first = entry("a@example.com")
    assert save_suppressions_now(engine, [first, first._replace(reason=SuppressionReason.COMPLAINT)]) == 1
    assert [listed.reason for listed in suppressions(engine)] == ["manual"]


def test_lifting_one_records_what_it_was_and_who_did_it_and_why(engine: sa.Engine) -> None:
    with write(engine) as connection:
        audience = add_audience(connection)
    save_suppressions_now(engine, [entry("a@example.com"), entry("a@example.com", audience), entry("b@example.com")])
    lifted = lift(engine, ["a@example.com"], None, by="Ada", why="asked for it by phone", now=LATER)
    assert [(one.address, one.audience_id) for one in lifted] == [("a@example.com", 0), ("a@example.com", audience)]
    assert [listed.address for listed in suppressions(engine)] == ["b@example.com"]
    with read(engine) as connection:
        rows = connection.execute(sa.text("SELECT address, reason, lifted_by, why FROM lifted_suppression")).all()
    assert [tuple(row) for row in rows] == [("a@example.com", "manual", "Ada", "asked for it by phone")] * 2
    assert lift(engine, ["a@example.com"], None, by="Ada", why="again", now=LATER) == []


def test_lifting_for_one_audience_leaves_the_rest(engine: sa.Engine) -> None:
    with write(engine) as connection:
        audience = add_audience(connection)
    save_suppressions_now(engine, [entry("a@example.com"), entry("a@example.com", audience)])
    assert len(lift(engine, ["a@example.com"], audience, by="Ada", why="x", now=LATER)) == 1
    assert [listed.audience for listed in suppressions(engine)] == [None]


def test_what_was_suppressed_before_the_table_knew_audiences_still_holds(empty_database_url: str) -> None:

    from postroad.store import migrate
    from postroad.store.engine import open_engine

    engine = open_engine(empty_database_url)
    with write(engine) as connection:
        migrate.run_migrations(connection, "0005")
        connection.execute(
            sa.text(
                "INSERT INTO suppression (address, reason, source, created_at) VALUES ('a@b.de', 'manual', 's', :now)"
            ),
            {"now": "2026-01-01 00:00:00.000000"},
        )
    migrate.upgrade(engine)
    assert [(one.address, one.audience, one.created_at.year) for one in suppressions(engine)] == [
        ("a@b.de", None, 2026)
    ]
    engine.dispose()
