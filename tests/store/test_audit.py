"""The record of an act is in the transaction of the act, however the act is written."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from postroad.store.audit import Actor, AuditedAct, AuditFilter, AuditRecord, audit_records, audited, record_act
from postroad.store.engine import read, write
from postroad.store.suppression import Entry, SuppressionReason, lift, save_suppressions_now

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
ACTOR = Actor(name="ada", origin="192.0.2.7")


def act(count: int | None = None) -> AuditedAct:
    return AuditedAct(actor=ACTOR, action="suppression.add", target="a@example.com", at=NOW, count=count, note="asked")


def suppress(engine: sa.Engine, address: str = "a@example.com") -> int:
    return save_suppressions_now(engine, [Entry(address, SuppressionReason.MANUAL, "console", NOW)])


def records(engine: sa.Engine) -> list[AuditRecord]:
    with read(engine) as connection:
        return list(audit_records(connection, 100))


def test_a_function_with_its_own_transaction_is_recorded_in_it(engine: sa.Engine) -> None:
    with audited(engine, act()) as doing:
        doing.count = suppress(engine)
    (record,) = records(engine)
    assert (record.at, record.actor, record.origin) == (NOW, "ada", "192.0.2.7")
    assert (record.action, record.target, record.count, record.note) == ("suppression.add", "a@example.com", 1, "asked")


def test_the_record_commits_with_the_act(engine: sa.Engine) -> None:
    """The first transaction inserts it, although the process dies directly afterwards."""

    def work() -> None:
        with audited(engine, act(1)):
            suppress(engine)
            assert len(records(engine)) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert [record.count for record in records(engine)] == [1]


def test_an_act_that_is_rolled_back_has_no_record(engine: sa.Engine) -> None:
    def work() -> None:
        with audited(engine, act()), write(engine) as connection:
            record_act(connection, ACTOR, "x", "y", 1, at=NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert records(engine) == []


def test_several_transactions_have_one_record_with_the_last_count(engine: sa.Engine) -> None:
    with audited(engine, act(0)) as doing:
        for number in range(3):
            doing.count = number + 1
            suppress(engine, f"{number}@example.com")
    assert [record.count for record in records(engine)] == [3]


def test_an_act_without_a_transaction_gets_a_record(engine: sa.Engine) -> None:
    with audited(engine, act(7)):
        pass
    assert [record.count for record in records(engine)] == [7]


def test_an_act_on_the_queue_is_recorded_before_it_begins(engine: sa.Engine) -> None:
    def work() -> None:
        with audited(engine, act(7), first=True):
            assert len(records(engine)) == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert len(records(engine)) == 1


async def test_threads_of_an_act_are_covered_and_other_tasks_are_not(engine: sa.Engine) -> None:
    begun, may_act = asyncio.Event(), asyncio.Event()

    async def other() -> None:
        await begun.wait()
        await asyncio.to_thread(suppress, engine, "other@example.com")
        assert records(engine) == []
        may_act.set()

    async def ours() -> None:
        with audited(engine, act()) as doing:
            begun.set()
            await may_act.wait()
            doing.count = await asyncio.to_thread(suppress, engine)

    await asyncio.gather(other(), ours())
    assert len(records(engine)) == 1


def test_a_function_that_lifts_is_recorded_like_one_that_adds(engine: sa.Engine) -> None:
    suppress(engine)
    with audited(engine, act()) as doing:
        doing.count = len(lift(engine, ["a@example.com"], None, by="ada", why="asked", now=NOW))
    assert [record.count for record in records(engine)] == [1]


def test_records_are_listed_by_key_and_filter(engine: sa.Engine) -> None:
    with write(engine) as connection:
        for number in range(7):
            actor = Actor(name="ada" if number % 2 else "grace", origin="here")
            record_act(connection, actor, "a.b" if number < 4 else "c.d", str(number), number, at=NOW)
    with read(engine) as connection:
        first = audit_records(connection, 3)
        assert [record.target for record in first] == ["6", "5", "4"]
        second = audit_records(connection, 3, before=first[-1].id)
        assert [record.target for record in second] == ["3", "2", "1"]
        assert [row.target for row in audit_records(connection, 9, only=AuditFilter(actor="ada"))] == ["5", "3", "1"]
        both = AuditFilter(actor="ada", action="a.b")
        assert [row.target for row in audit_records(connection, 9, only=both)] == ["3", "1"]


def test_a_long_or_hostile_target_is_stored_within_its_column(engine: sa.Engine) -> None:
    with write(engine) as connection:
        record_act(connection, Actor(name="ä" * 500, origin="x" * 500), "a.b", "<b>\x1b" * 500, None, at=NOW)
    (record,) = records(engine)
    assert (len(record.actor), len(record.origin), len(record.target)) == (200, 100, 320)
