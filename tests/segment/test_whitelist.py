"""Nothing of a condition's text reaches the database but parameters: the SQL consists of our own words."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from postroad.segment.errors import ConditionError
from postroad.segment.parse import parse
from postroad.segment.sql import ConditionScope, where_sql
from postroad.segment.tree import FunctionName, RecipientCondition
from postroad.store.engine import read
from tests.segment.conditions import conditions
from tests.segment.people_fields import FIELDS, NOW

OUR_WORDS = set(
    re.findall(
        r"\S+",
        """
    select true false null from where and or not in is like glob between escape case when then else end as limit on join
    coalesce nullif cast floor extract epoch lower translate collate C bigint text timestamptz double precision
    jsonb_typeof string Z yes y no n off recipient_event recipient audience audience_member touch delivery_event
    suppression mail_domain id recipient_id audience_id campaign_id step_id touch_id name at fields attributes address
    domain time_zone provider joined_at settled_at state accepted bounced cause reply reason unsubscribe
    postroad_field postroad_number postroad_date_ms postroad_lower
    """,
    )
) | {"0", "1", "1000"}
PIECE = re.compile(r":c_[0-9]+|[A-Za-z_][A-Za-z_0-9]*|[0-9]+|->>|->|\|\||<>|<=|>=|[=<>(),.*+~'\"\\\s]")

HOSTILE = (
    "(select 1)",
    "plan = (select address from recipient)",
    "exists (select 1)",
    "plan in (select name from audience)",
    "plan = 'a'; drop table recipient",
    "plan = 'a' -- and",
    "plan = 'a' /* */",
    "plan = 'a' # x",
    "'; --",
    "plan = '''",
    'plan = "a"',
    "plan = `a`",
    "plan = $$a$$",
    "plan = $1",
    "plan = :c_1",
    "plan = ?",
    "plan = %s",
    "plan = %(a)s",
    "plan = @a",
    "plan = {a}",
    "plan::int = 1",
    "cast(plan as int) = 1",
    "plan = E'\\x41'",
    "plan = U&'\\0041'",
    "plan = x'41'",
    "plan = 0x41",
    "plan = b'1'",
    "plan = N'a'",
    "plan collate nocase = 'a'",
    "plan = any(array['a'])",
    "pg_sleep(10)",
    "load_extension('x')",
    "readfile('/etc/passwd')",
    "pg_read_file('x') = 'a'",
    "version() = 'a'",
    "current_user = 'a'",
    "random() > 1",
    "sqlite_version() = 'a'",
    "randomblob(1000000000) = 'a'",
    "plan || plan = 'a'",
    "plan ~ 'a'",
    "plan similar to 'a'",
    "plan regexp 'a'",
    "plan glob 'a'",
    "plan match 'a'",
    "plan ilike 'a'",
    "plan -> 'a' = 'b'",
    "plan ->> 'a' = 'b'",
    "plan[1] = 'a'",
    "plan.x = 'a'",
    "recipient.plan = 'a'",
    "* = 'a'",
    "case when plan = 'a' then 1 end = 1",
    "plan = 'a' union select 1",
    "plan = 'a' limit 1",
    "plan = 'a' order by 1",
    "plan = 'a' group by plan",
    "plan over (partition by plan) = 'a'",
    "with a as (select 1) select 1",
    "values (1)",
    "not " * 2_000 + "plan = 'a'",
    "(" * 2_000 + "plan = 'a'" + ")" * 2_000,
    "-" * 3_000 + "1 = number(plan)",
    " and ".join(["plan = 'a'"] * 2_000),
    "plan = '" + "a" * 5_000 + "'",
    "plan in (" + ", ".join(["1"] * 1_500) + ")",
    "plan = 'a\0b'",
    "plan = 'a\ud800b'",
    "pl\u200ban = 'a'",
    "ｐｌａｎ = 'a'",
    "plan ＝ 'a'",
    "plan = ‘a’",
    "{# comment #} plan = 'a'",
    "{{ plan }} = 'a'",
    "{% if %}",
    "plan = 'a'\\",
    "\\",
    "'",
    '"',
    "plan = '\\'' or 1=1",
    "1 = 1",
    "true",
    "true or true",
    "null",
    "null is null",
    "plan = null",
    "plan is distinct from 'a'",
    "row(plan) = 'a'",
    "interval '1 day' = 'a'",
    "date '2026-01-01' < now()",
    "now",
    "now = 'a'",
    "current_timestamp > now()",
    "plan isnull",
    "unknown_function()",
    "event()",
    "event('a', 'b', 'c', 'd')",
    "event('paid', where => event('paid'))",
    "event('paid', where => domain() = 'a')",
    "event('paid', where => (select 1))",
    "event(name => (select 1))",
    "in_audience((select 'a'))",
    "accepted(plan)",
    "joined(now())",
    "number(plan, city) = 1",
    "number() = 1",
    "number(*) = 1",
    "number(distinct plan) = 1",
    "lower(plan order by plan) = 'a'",
    "plan at time zone 'UTC' = 'a'",
    "(plan, city) = ('a', 'b')",
    "plan between symmetric 1 and 2",
    "plan = all (select 1)",
    "plan like any ('a')",
    "plan escape 'a'",
    "plan like 'a' escape ''",
)
"""What people try."""


def require_own_words(sql: str) -> None:
    """Check that a statement has only words of ours, and no value."""
    place = 0
    while place < len(sql):
        piece = PIECE.match(sql, place)
        assert piece, sql[place : place + 40]
        word = piece[0]
        if word[0].isalnum() or word[0] == "_":
            assert word in OUR_WORDS or word.lower() in OUR_WORDS, word
        place = piece.end()


def try_condition(text: str) -> bool:
    """Return whether a text is a condition. No other error than ConditionError is raised, and its column is in it."""
    try:
        condition = parse(text, FIELDS)
    except ConditionError as refused:
        fault = refused
    else:
        for dialect in ("sqlite", "postgresql"):
            require_own_words(where_sql(condition, dialect, scope_of(condition)).sql)
        return True
    assert 1 <= fault.column <= len(text) + 1, (text, fault.column)
    assert fault.message
    return False


def scope_of(condition: RecipientCondition) -> ConditionScope:
    """Return a campaign that has every step of a condition."""
    steps = {call.name or "": 1 for call in condition.calls(FunctionName.ACCEPTED)}
    return ConditionScope(now=NOW, audience_id=1, campaign_id=1, steps=steps)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_people_try_is_refused_with_its_place(text: str) -> None:
    assert not try_condition(text)


def test_a_quote_in_a_text_is_data() -> None:
    assert try_condition("plan = '''' or plan = 'a'';--'")


def test_a_field_may_have_the_name_of_a_keyword_or_function() -> None:
    assert try_condition("\"in\" = 'a' and \"order\" < now() and order > '2026-01-01'")


_words = st.sampled_from(
    [
        *HOSTILE,
        "plan",
        "seats",
        "'a'",
        "5",
        "7d",
        "now()",
        "date(",
        "event(",
        ")",
        "(",
        ",",
        "and",
        "or",
        "not",
        "in",
        "is",
        "null",
        "like",
        "between",
        "escape",
        "=",
        "<",
        ">=",
        "!=",
        "<>",
        "=>",
        "+",
        "-",
        "select",
        "from",
        "where",
        "case",
        "when",
        "end",
        "cast",
        "as",
        "::",
        "--",
        "/*",
        "*/",
        ";",
        "$$",
        "'",
        '"',
        "\\",
        "\n",
        "true",
        "within",
        "union",
        "{#",
        "#}",
        "distinct",
        "over",
        "filter",
        "at",
        "time",
        "zone",
        "collate",
        "any",
        "all",
        "exists",
        "interval",
        "array",
        "[",
        "]",
        ".",
    ]
).filter(lambda word: len(word) < 200)
FUZZ = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@FUZZ
@given(
    text=st.lists(_words, max_size=12).map(" ".join) | st.lists(_words, max_size=12).map("".join) | st.text(max_size=60)
)
@example("plan = 'a'")
def test_no_text_raises_another_error_or_leaves_the_whitelist(text: str) -> None:
    try_condition(text)


@FUZZ
@given(text=conditions, place=st.integers(0, 200), inserted=_words)
def test_a_condition_with_foreign_text_in_it_stays_in_the_whitelist(text: str, place: int, inserted: str) -> None:
    try_condition(text)
    try_condition(text[: place % (len(text) + 1)] + inserted + text[place % (len(text) + 1) :])


@settings(FUZZ, max_examples=60)
@given(text=st.lists(_words, max_size=8).map(" ".join))
def test_what_passes_is_executed_by_the_database(engine: sa.Engine, text: str) -> None:
    with read(engine) as connection:
        if try_condition(text):
            condition = parse(text, FIELDS)
            where = where_sql(condition, connection.dialect.name, scope_of(condition))
            connection.execute(sa.text(f"SELECT id FROM recipient WHERE {where.sql}"), where.parameters)
