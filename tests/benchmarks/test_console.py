"""The benchmark of the console measures every page, on a store whose counts are those of its rows."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from benchmarks.console import READS, Effort, console, measures
from benchmarks.console_pages import COMPUTED, page_paths, route_path
from benchmarks.console_store import StoreSize, fill_store
from benchmarks.databases import POSTGRESQL, SQLITE
from benchmarks.server import running
from postroad.console.registry import SCREENS
from postroad.store.engine import write
from postroad.store.migrate import upgrade
from tests.postgresql import assert_counts_agree

SIZE = StoreSize(touches=2_000, events=8_000)


def test_what_is_not_measured_is_registered() -> None:
    registered = {route.path for screen in SCREENS for route in screen.routes if route.method == "GET"}
    assert set(page_paths()) == registered - COMPUTED.keys()
    assert COMPUTED.keys() <= registered


def test_a_path_belongs_to_the_route_that_serves_it() -> None:
    assert route_path("/") == "/"
    assert route_path("/people/suppressions/lift") == "/people/suppressions/lift"
    assert route_path("/campaigns/a%20b/messages") == "/campaigns/{campaign}/messages"
    assert route_path("/static/0/console.css") is None


def test_a_generated_store_has_the_counts_of_its_rows(engine: sa.Engine) -> None:
    upgrade(engine)
    before = objects(engine)
    fill_store(engine, SIZE, datetime.now(UTC).replace(microsecond=0))
    assert_counts_agree(engine)
    assert objects(engine) == before
    with write(engine) as connection:  # The triggers count again.
        connection.execute(sa.text("UPDATE touch SET state = 'cancelled' WHERE state = 'planned'"))


def objects(engine: sa.Engine) -> set[str]:
    """Return the names of the indexes and triggers."""
    names = "SELECT indexname FROM pg_indexes UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
    if engine.dialect.name == "sqlite":
        names = "SELECT name FROM sqlite_master WHERE type IN ('index', 'trigger')"
    with engine.connect() as connection:
        return set(connection.execute(sa.text(names)).scalars())


@pytest.mark.timeout(300)
async def test_each_read_and_each_page_has_a_time_on_both_databases() -> None:
    effort = Effort(size=SIZE, rounds=2)
    async with running() as server:
        figures = await console(server, effort)
    names = [figure.measure for figure in figures]
    assert len(set(names)) == len(names)
    assert set(names) <= {measure.name for measure in measures(effort)}
    for database in (SQLITE, POSTGRESQL):
        measured = {name.partition(",")[0] for name in names if f" {database}," in name}
        assert READS.keys() <= measured
        assert {"page /", "page /campaigns/{campaign}/messages", "page /people/audiences/{name}"} <= measured
        assert len(measured) - len(READS) >= len(page_paths()) / 2
    assert all(figure.ours > 0 and math.isfinite(figure.ours) for figure in figures)
