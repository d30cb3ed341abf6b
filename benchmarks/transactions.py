"""Watches the transactions of an engine: who began each, what it cost, and how long it held the write lock."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from types import FrameType
from typing import Any

import sqlalchemy as sa

_INSTRUCTIONS = 50
"""SQLite tells of so many instructions of its virtual machine at a time."""

_ROWS_READ = "SELECT sum(seq_tup_read) + sum(COALESCE(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"


@dataclass
class Transaction:
    """``site``: module and function that began it. ``effort``: instructions of SQLite, or rows that PostgreSQL read.

    ``seconds``: from its beginning, which on SQLite is when it has the lock, to the return of its connection.
    """

    site: str
    writes: bool
    began_s: float
    effort: int = 0
    seconds: float = 0.0


@dataclass
class Watch:
    """The transactions that ended, in order."""

    transactions: list[Transaction] = field(default_factory=list)

    def worst(self) -> dict[str, Transaction]:
        """Return by site the transaction of the largest effort, with the longest time of any that writes."""
        found: dict[str, Transaction] = {}
        for each in self.transactions:
            known = found.setdefault(each.site, Transaction(each.site, each.writes, each.began_s))
            known.writes |= each.writes
            known.effort = max(known.effort, each.effort)
            if each.writes:  # What only reads holds no lock.
                known.seconds = max(known.seconds, each.seconds)
        return found

    def describe_slow(self, over_s: float) -> list[str]:
        """Return, for each site with a write transaction longer than a time, how long its transactions took.

        A median far below the longest says that something else stopped the transaction, such as a checkpoint.
        """
        times: defaultdict[str, list[float]] = defaultdict(list)
        for each in self.transactions:
            if each.writes:
                times[each.site].append(each.seconds * 1000)
        return [
            f"{site}: {len(found)} transactions, median {median(found):.1f} ms, longest "
            f"{', '.join(f'{ms:.0f}' for ms in sorted(found)[-5:])} ms"
            for site, found in times.items()
            if max(found) > over_s * 1000
        ]


@contextmanager
def watched(engine: sa.Engine) -> Iterator[Watch]:
    """Watch what begins within it."""
    watch = Watch()
    open_: dict[int, Transaction] = {}  # by the driver's connection
    sqlite = engine.dialect.name == "sqlite"

    def begun(connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        writes = bool(connection.get_execution_options().get("postroad_writes", False))
        transaction = Transaction(_site(), writes, time.perf_counter())
        open_[id(driver)] = transaction
        if sqlite:

            def progress() -> int:
                transaction.effort += _INSTRUCTIONS
                return 0

            driver.set_progress_handler(progress, _INSTRUCTIONS)
        else:
            # The server counts on from transactions before, whose counts it has not passed on yet.
            transaction.effort = -_rows_read(driver)

    def committed(connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        if not sqlite and id(driver) in open_:
            open_[id(driver)].effort += _rows_read(driver)

    def returned(driver: Any, _record: object) -> None:
        transaction = open_.pop(id(driver), None)
        if transaction is not None:
            transaction.seconds = time.perf_counter() - transaction.began_s
            watch.transactions.append(transaction)
            if sqlite:
                driver.set_progress_handler(None, 0)

    listeners = (("begin", begun), ("commit", committed), ("checkin", returned))
    for event, listener in listeners:
        sa.event.listen(engine, event, listener)
    try:
        yield watch
    finally:
        for event, listener in listeners:
            sa.event.remove(engine, event, listener)


def _rows_read(driver: Any) -> int:
    return int(driver.execute(_ROWS_READ).fetchone()[0] or 0)


def _site() -> str:
    """Module and function of ours that began the transaction that begins now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(("postroad.", "tasks.")) and module != "postroad.store.engine":
            return f"{module}:{frame.f_code.co_qualname}"
        frame = frame.f_back
    return "elsewhere"
