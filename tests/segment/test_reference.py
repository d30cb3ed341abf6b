"""Every example of the reference is a condition that both databases execute, and every function is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.field_types import FieldType
from postroad.segment.functions import ALL_NAMES
from postroad.segment.parse import parse
from postroad.segment.sql import ConditionScope, where_sql
from postroad.store.engine import read
from tests.segment.people_fields import NOW

PAGE = (Path(__file__).parents[2] / "docs/reference/conditions.md").read_text(encoding="utf-8")
ROWS = [line.strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and "example" not in line]
EXAMPLES = [match[1] for row in ROWS if (match := re.fullmatch(r"`(.+)`", row[-1].strip()))]
EXAMPLES += re.findall(r"```sql\n(.+)\n```", PAGE)
FIELDS = {
    **dict.fromkeys(["plan", "country", "company", "discount", "phone", "logins", "renewal", "city"], FieldType.TEXT),
    "seats": FieldType.NUMBER,
    "trial_ends": FieldType.DATE,
    "newsletter": FieldType.YES_NO,
}


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) >= 25


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_is_executed(engine: sa.Engine, text: str) -> None:
    fields = FIELDS | ({"seats": FieldType.TEXT} if "number(seats)" in text else {})
    scope = ConditionScope(now=NOW, audience_id=1, campaign_id=1, steps={"hello": 1})
    with read(engine) as connection:
        where = where_sql(parse(text, fields), connection.dialect.name, scope)
        assert connection.execute(sa.text(f"SELECT id FROM recipient WHERE {where.sql}"), where.parameters).all() == []


def test_every_function_has_a_row() -> None:
    rows = {match[1] for row in ROWS if (match := re.match(r"\s*`(\w+)\(", row[0]))}
    assert rows == set(ALL_NAMES)
