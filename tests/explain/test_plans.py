"""An explanation reads by index only, in a ledger of any size, before the first ANALYZE."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from postroad.app.context import AppContext, open_context
from postroad.errors import StateError
from postroad.explain.campaign_delays import CHUNK, campaign_delays
from postroad.explain.story import read_ledger
from postroad.settings import Settings
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.touch_page import touch_page
from tests.explain.scene import SETTINGS
from tests.kit.clock import FakeClock
from tests.store.effort import effort_of
from tests.store.large import DUE, add_large_campaign, series
from tests.store.rows import NOW, add_audience

SMALL, LARGE = 3_000, 30_000
GROWING = (
    "touch", "recipient", "delivery_event", "audience_member", "bounce_mail", "bounce_effect", "suppression",
    "lifted_suppression", "overflow", "past_touch", "recipient_event", "enrolment", "shaping_change",
    "sender_hold", "cohort_pause",
)  # fmt: skip
"""Tables that grow with mail or time. Campaigns, steps, senders and audiences are few."""


def fill(engine: sa.Engine, number: int) -> int:
    """Add a campaign of so many touches, each with an event, and members of an audience. Returns the last touch."""
    with write(engine) as connection:
        campaign_id, (step, _) = add_large_campaign(connection, number, TouchState.QUEUED)
        audience = add_audience(connection)
        import_id = connection.execute(sa.text("SELECT max(id) FROM audience_import")).scalar_one()
        connection.execute(
            sa.text(
                "INSERT INTO audience_member (audience_id, recipient_id, import_id) "
                f"SELECT {audience}, n, {import_id} FROM {series(connection, 1, number)}"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO recipient_event (recipient_id, name, at, fields) "
                f"SELECT n, 'paid', '{DUE}', '{{}}' FROM {series(connection, 1, number)}"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO delivery_event (uid, touch_id, state, at, attempt, cause, reply) "
                f"SELECT 'e' || id, id, 'deferred', '{DUE}', 1, 'greylisted, so far', '450 later' FROM touch "
                f"WHERE campaign_id = {campaign_id}"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO shaping_change (gate, rule, sender, reply, at, suspended, restored_at) "
                f"SELECT 'sender:s' || n || '@example.com', 'r', 's' || n || '@example.com', '421', '{DUE}', true, "
                f"'{DUE}' FROM {series(connection, 1, number)}"
            )
        )
        return touch_page(connection, campaign_id, step, after=number - 1)[-1].id


@pytest.fixture
async def context(engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("POSTROAD_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "postroad.toml").write_text(SETTINGS)
    clock = FakeClock(int(NOW.timestamp() * 1000))
    async with open_context(Settings.load(tmp_path / "postroad.toml"), clock, engine=engine) as context:
        yield context


@contextmanager
def statements_of(engine: sa.Engine) -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements that are executed within it, with their parameters."""
    found: list[tuple[str, Any]] = []

    def seen(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        found.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", seen)
    try:
        yield found
    finally:
        sa.event.remove(engine, "before_cursor_execute", seen)


def scans(connection: sa.Connection, statement: str, parameters: Any) -> list[str]:
    """Return the growing tables that a statement reads without a condition on an index."""
    if connection.dialect.name == "sqlite":
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        return [row[3] for row in plan if row[3].startswith("SCAN") and row[3].split()[1] in GROWING]
    # Small tables are scanned because that is cheaper; what an index can do shows without scans.
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
    plan = json.loads(plan) if isinstance(plan, str) else plan
    return [str(node) for node in _nodes(plan[0]["Plan"]) if node.get("Relation Name") in GROWING and _reads_all(node)]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    below = plan.pop("Plans", [])
    yield plan
    for inner in below:
        if inner["Node Type"] == "Bitmap Index Scan":
            plan["Index Cond"] = inner.get("Index Cond")
        yield from _nodes(inner)


def _reads_all(node: dict[str, Any]) -> bool:
    if node["Node Type"] == "Bitmap Heap Scan":
        return False  # Its index scan is a node without the table's name, and has a condition.
    return node["Node Type"] == "Seq Scan" or not node.get("Index Cond")


PARTIAL = ("cohort_pause", "sender_hold", "shaping_change")
"""Of these an index of open rows is read whole: there are few."""


async def test_every_statement_follows_an_index(context: AppContext, engine: sa.Engine) -> None:
    touch = fill(engine, LARGE)
    with statements_of(engine) as found:
        with read(engine) as connection:
            read_ledger(connection, context, f"r{LARGE}@d{LARGE % 97}.example", None, NOW)
            read_ledger(connection, context, str(touch), None, NOW)
            with pytest.raises(StateError, match="no recipient"):
                read_ledger(connection, context, "r3@d4.example", None, NOW)
        await campaign_delays(context, _campaign(engine))
    assert len(found) > 30
    with read(engine) as connection:
        for statement, parameters in found:
            if statement.lstrip().startswith(("SELECT", "WITH")):
                whole = scans(connection, statement, parameters)
                assert [scan for scan in whole if not any(table in statement for table in PARTIAL)] == [], statement
                if any(table in statement for table in PARTIAL):
                    assert not whole or "IS NULL" in statement or "step_id" in statement, (statement, whole)


def _campaign(engine: sa.Engine) -> str:
    with read(engine) as connection:
        return str(connection.execute(sa.text("SELECT name FROM campaign ORDER BY id DESC")).scalars().first())


def test_a_story_in_a_large_ledger_reads_few_rows(context: AppContext, engine: sa.Engine) -> None:
    """A scan of any of the tables would cost an instruction or more for each of its rows."""
    fill(engine, SMALL)
    touch = fill(engine, LARGE)
    with read(engine) as connection, effort_of(connection) as effort:
        story = read_ledger(connection, context, str(touch), None, NOW)
    assert len(story.timeline) == 5
    assert 0 < effort.count < LARGE / 20


async def test_a_large_campaign_is_sampled_and_a_small_one_is_read_whole(
    context: AppContext, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, SMALL)
    whole = await campaign_delays(context, _campaign(engine))
    assert (whole.touches, whole.read, whole.sampled, whole.waiting.touches) == (SMALL, SMALL, False, SMALL)
    monkeypatch.setattr("postroad.explain.campaign_delays.SAMPLE", 2 * CHUNK)
    context.clock.advance(3_600_000)  # type: ignore[attr-defined]
    seen: list[tuple[int, int]] = []
    sample = await campaign_delays(context, _campaign(engine), progress=lambda *done: seen.append(done))
    assert (sample.touches, sample.read, sample.sampled) == (SMALL, 2 * CHUNK, True)
    assert seen == [(CHUNK, 2 * CHUNK), (2 * CHUNK, 2 * CHUNK)]
    hour = timedelta(hours=1) // timedelta(milliseconds=1)
    assert sample.waiting.total_ms == 2 * CHUNK * hour == sum(one.ms for one in sample.waiting.delays)
    assert (sample.waiting.median_ms, sample.waiting.p95_ms, sample.waiting.longest_ms) == (hour, hour, hour)
