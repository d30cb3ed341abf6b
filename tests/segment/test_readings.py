"""SQLite, PostgreSQL and plain Python read every condition alike."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postroad.segment.explain import explain
from postroad.segment.holds import date_of, holds
from postroad.segment.parse import parse, parse_date
from postroad.segment.person import Person
from postroad.segment.sql import date_sql, where_sql
from postroad.segment.text import clause_text
from postroad.segment.tree import date_from_json, from_json, to_json
from postroad.store.engine import write_connection
from tests.segment.conditions import conditions
from tests.segment.people import Store, people
from tests.segment.people_fields import FIELDS, NOW

RANDOM = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def found_by_sql(store: Store, text: str) -> tuple[set[int], int]:
    """Return the recipients that the SQL finds, and how many it finds neither true nor false."""
    where = where_sql(parse(text, FIELDS), store.connection.dialect.name, store.scope)
    statement = sa.text(f"SELECT recipient.id, {where.sql} AS met FROM recipient")
    rows = store.connection.execute(statement, where.parameters).all()
    return {row.id for row in rows if row.met}, sum(row.met is None for row in rows)


@pytest.mark.timeout(300)
@RANDOM
@given(drawn=st.lists(people, min_size=1, max_size=6), texts=st.lists(conditions, min_size=1, max_size=6))
def test_sql_and_python_agree(engine: sa.Engine, drawn: list[Person], texts: list[str]) -> None:
    with write_connection(engine) as connection, connection.begin() as transaction:
        store = Store(connection)
        persons = dict(store.add(person) for person in drawn)
        for text in texts:
            condition = parse(text, FIELDS)
            found, undecided = found_by_sql(store, text)
            assert undecided == 0, text
            assert found == {id_ for id_, person in persons.items() if holds(condition, person)}, text
        transaction.rollback()


@RANDOM
@given(text=conditions, person=people)
def test_a_condition_survives_the_store_and_is_written_as_text_with_the_same_tree(text: str, person: Person) -> None:
    condition = parse(text, FIELDS)
    assert from_json(json.loads(json.dumps(to_json(condition)))) == condition
    assert parse(clause_text(condition.root), FIELDS).root == condition.root
    lines = explain(condition, person)
    assert len({line.text for line in lines}) >= 1
    if all(line.depth == 0 for line in lines):
        assert all(line.holds for line in lines) is holds(condition, person)


@pytest.mark.timeout(120)
@RANDOM
@given(
    drawn=st.lists(people, min_size=1, max_size=6),
    text=st.sampled_from(["trial_ends", "date(plan) - 2d", '"order" + 12h', "now() + 1ms", "date(city) + 1d - 1d"]),
)
def test_dates_agree(engine: sa.Engine, drawn: list[Person], text: str) -> None:
    date = parse_date(text, FIELDS)
    assert date_from_json(json.loads(json.dumps(to_json(date)))) == date
    with write_connection(engine) as connection, connection.begin() as transaction:
        store = Store(connection)
        persons = dict(store.add(person) for person in drawn)
        sql = date_sql(date, connection.dialect.name, NOW)
        rows = connection.execute(sa.text(f"SELECT recipient.id, {sql.sql} AS at FROM recipient"), sql.parameters)
        assert {row.id: row.at for row in rows} == {id_: date_of(date, person) for id_, person in persons.items()}
        transaction.rollback()
