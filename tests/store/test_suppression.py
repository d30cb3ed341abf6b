"""Suppressions: kept once, the first reason stays, also when two transactions write at the same time."""

from __future__ import annotations

from datetime import UTC, datetime
from threading import Thread

import pytest
import sqlalchemy as sa

from postroad.store.engine import read, write
from postroad.store.suppression import SuppressionReason, suppress, suppress_now

NOW = datetime(2026, 5, 4, tzinfo=UTC)


def kept(engine: sa.Engine) -> dict[str, str]:
    with read(engine) as connection:
        rows = connection.execute(sa.text("SELECT address, reason FROM suppression")).all()
        return {row.address: row.reason for row in rows}


def test_an_address_is_kept_once_and_its_first_reason_stays(engine: sa.Engine) -> None:
    addresses = ["a@example.com", "b@example.com", "a@example.com"]
    assert suppress_now(engine, addresses, SuppressionReason.UNSUBSCRIBE, "link", NOW) == 2
    again = ["b@example.com", "c@example.com"]
    assert suppress_now(engine, again, SuppressionReason.COMPLAINT, "report", NOW) == 1
    assert kept(engine) == {
        "a@example.com": "unsubscribe",
        "b@example.com": "unsubscribe",
        "c@example.com": "complaint",
    }


def test_no_address_is_no_statement(engine: sa.Engine) -> None:
    assert suppress_now(engine, [], SuppressionReason.MANUAL, "nobody", NOW) == 0


def test_any_address_goes_through_as_it_is(engine: sa.Engine) -> None:
    odd = ["o'brien@example.com", "a%b@example.com", "{x}@example.com", "我@xn--r8jz45g.jp", "back`tick@example.com"]
    odd += ["a:b@example.com", 'quo"te@example.com', "back\\slash@example.com", f"{'x' * 64}@{'y' * 60}.example"]
    assert suppress_now(engine, odd, SuppressionReason.MANUAL, 'it\'s "odd" \\ :name', NOW) == len(odd)
    assert set(kept(engine)) == set(odd)


def test_many_go_in_one_statement(engine: sa.Engine) -> None:
    assert (
        suppress_now(engine, (f"{n}@example.com" for n in range(40_000)), SuppressionReason.MANUAL, "x", NOW) == 40_000
    )


@pytest.mark.postgresql
def test_lists_in_opposite_orders_do_not_deadlock(postgresql_engine: sa.Engine) -> None:
    """Each statement waits for the rows of the other: in one order they can only wait one way."""
    addresses = [f"{n:05}@example.com" for n in range(4_000)]
    failures: list[BaseException] = []

    def work(some: list[str]) -> None:
        try:
            with write(postgresql_engine) as connection:
                suppress(connection, some, SuppressionReason.MANUAL, "test", NOW)
        except BaseException as error:
            failures.append(error)

    for _ in range(5):
        threads = [Thread(target=work, args=(some,)) for some in (addresses, addresses[::-1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with write(postgresql_engine) as connection:
            assert connection.execute(sa.text("DELETE FROM suppression")).rowcount == len(addresses)
    assert failures == []
