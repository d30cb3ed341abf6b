"""No transaction that runs while mail flows grows with the ledger, and the registry of operations misses none."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks.bounded_ledger import GROWS_BY_READING, growing, measure
from benchmarks.write_sites import ROWS_OF_THE_CALLER, write_sites
from postroad.store import migrate
from postroad.store.engine import open_engine

ROOT = Path(__file__).parents[2]
SMALL, LARGE = 2_000, 20_000
SLACK = {"sqlite": 3_000, "postgresql": 13_000}
STEP_INSTRUCTIONS = 500_000
"""Of SQLite, for the rows of one step: at most 1,000, of some 250 each. Comparing each with each takes millions."""


@pytest.mark.timeout(300)
def test_no_transaction_grows_with_the_ledger(
    engine: sa.Engine, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    small = measure(engine, SMALL)
    larger = _another(engine, request, tmp_path)
    large = measure(larger, LARGE)
    larger.dispose()
    assert growing(small, large, SLACK[engine.dialect.name]) == []

    if engine.dialect.name == "sqlite":
        steps = {site: worst.effort for site, worst in large.items() if worst.writes and site not in GROWS_BY_READING}
        assert {site: effort for site, effort in steps.items() if effort > STEP_INSTRUCTIONS} == {}

    written = {site for site, worst in large.items() if worst.writes}
    assert write_sites(ROOT) - written - ROWS_OF_THE_CALLER.keys() == set()
    assert ROWS_OF_THE_CALLER.keys() - write_sites(ROOT) == set()  # What is gone needs no excuse.
    assert ROWS_OF_THE_CALLER.keys() & written == set()


def _another(engine: sa.Engine, request: pytest.FixtureRequest, folder: Path) -> sa.Engine:
    """Return an engine on an empty, migrated database of the same kind."""
    if engine.dialect.name == "sqlite":
        larger = open_engine(f"sqlite:///{folder / 'larger.db'}")
        migrate.upgrade(larger)
        return larger
    server = request.getfixturevalue("postgresql_server")
    return open_engine(server.url(server.create()))
