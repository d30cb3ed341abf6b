"""People: audiences, imports, refusals and suppressions, each number with a list that sums to it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.campaign.audience import import_file
from postroad.errors import StateError
from postroad.read_model.page import Page
from postroad.read_model.people import (
    audience_members,
    audiences,
    import_refusals,
    imports,
    suppression_counts,
    suppressions_of_reason,
)
from postroad.store.engine import read, write
from postroad.store.people_page import ImportRow, RefusalRow
from postroad.store.suppression import SuppressionReason, lift, suppress, upgrade_reason
from tests.read_model.world import all_rows
from tests.store.effort import effort_of
from tests.store.large import DUE, series
from tests.store.rows import NOW, add_audience

R = SuppressionReason


def write_csv(path: Path, first: int, last: int, refused: int) -> Path:
    rows = [f"p{n}@example.com\n" for n in range(first, last + 1)] + ["no address\n"] * refused
    path.write_text("address\n" + "".join(rows), encoding="utf-8")
    return path


def test_members_and_refusals_have_lists_that_sum_to_their_numbers(engine: sa.Engine, tmp_path: Path) -> None:
    import_file(engine, "people", write_csv(tmp_path / "a.csv", 1, 7, 3), NOW)
    import_file(engine, "people", write_csv(tmp_path / "b.csv", 5, 12, 1), NOW + timedelta(hours=1))  # Three again.
    import_file(engine, "others", write_csv(tmp_path / "c.csv", 1, 2, 0), NOW)
    with write(engine) as connection:
        add_audience(connection, name="empty")
    with read(engine) as connection:
        found = {row.name: row for row in audiences(connection).rows}
        assert {name: row.members for name, row in found.items()} == {"empty": 0, "others": 2, "people": 12}
        paged = all_rows(lambda after: audiences(connection, after=after, limit=2))
        assert paged == list(found.values())
        for name, row in found.items():
            members = all_rows(lambda after, name=name: audience_members(connection, name, after=after, limit=5))  # type: ignore[misc]
            assert len({member.recipient_id for member in members}) == len(members) == row.members
        of_people = all_rows(lambda after: imports(connection, "people", after=after, limit=1))
        assert [(one.rows, one.refused) for one in of_people] == [(9, 1), (10, 3)]
        assert found["people"].last_import == of_people[0]
        for one in of_people:

            def page(after: str | None, one: ImportRow = one) -> Page[RefusalRow]:
                return import_refusals(connection, "people", one.id, after=after, limit=2)

            refused = all_rows(page)
            assert len(refused) == one.refused
            assert {row.reason for row in refused} != {""}
            with pytest.raises(StateError, match=f"audience others has no import {one.id}"):
                import_refusals(connection, "others", one.id)


def test_suppressions_of_a_reason_sum_to_its_number(engine: sa.Engine) -> None:
    with write(engine) as connection:
        audience = add_audience(connection, name="people")
        for n in range(7):
            suppress(connection, [f"r{n}@example.com"], (R.HARD_BOUNCE, R.UNSUBSCRIBE)[n % 2], "test", NOW)
        suppress(connection, ["r1@example.com"], R.UNSUBSCRIBE, "again", NOW)
        suppress(connection, ["r1@example.com"], R.MANUAL, "one audience", NOW, audience)
        upgrade_reason(connection, "r0@example.com", R.COMPLAINT, "feedback")
    assert len(lift(engine, ["r3@example.com"], None, by="ada", why="asked", now=NOW)) == 1
    with read(engine) as connection:
        counts = suppression_counts(connection)
        assert {count.reason: count.suppressions for count in counts} == {
            R.UNSUBSCRIBE: 2,
            R.HARD_BOUNCE: 3,
            R.COMPLAINT: 1,
            R.MANUAL: 1,
        }
        for count in counts:
            rows = all_rows(
                lambda after, count=count: suppressions_of_reason(connection, count.reason, after=after, limit=2)  # type: ignore[misc]
            )
            assert len({row.number for row in rows}) == len(rows) == count.suppressions
            assert {row.reason for row in rows} == {count.reason}
        assert [row.audience for row in suppressions_of_reason(connection, R.MANUAL).rows] == ["people"]


def test_reads_cost_the_same_among_more_people(engine: sa.Engine) -> None:
    efforts = []
    with write(engine) as connection:
        audience = add_audience(connection, name="people")
    for first, last in ((1, 2_000), (2_001, 20_000)):
        with write(engine) as connection:
            of_series = series(connection, first, last)
            connection.execute(
                sa.text(
                    "INSERT INTO recipient (id, address, domain, attributes, created_at) "
                    f"SELECT n, 'p' || n || '@example.com', 'example.com', '{{}}', '{DUE}' FROM {of_series}"
                )
            )
            connection.execute(
                sa.text(
                    "INSERT INTO audience_member (audience_id, recipient_id, import_id) "
                    f"SELECT {audience}, n, (SELECT min(id) FROM audience_import) FROM {of_series}"
                )
            )
            connection.execute(
                sa.text(
                    "INSERT INTO suppression (address, audience_id, reason, source, created_at, number) "
                    f"SELECT 'p' || n || '@example.com', 0, 'manual', 'test', '{DUE}', n FROM {of_series}"
                )
            )
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
        with read(engine) as connection, effort_of(connection) as effort:
            assert [row.members for row in audiences(connection).rows] == [last]
            assert [count.suppressions for count in suppression_counts(connection)] == [last]
            page = audience_members(connection, "people")
            assert len(audience_members(connection, "people", after=page.next).rows) == 50
            assert len(suppressions_of_reason(connection, R.MANUAL).rows) == 50
        efforts.append(effort.count)
    assert efforts[1] <= max(1.3 * efforts[0], efforts[0] + 150)
