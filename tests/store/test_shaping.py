"""The longest names that settings and a shaping.toml let through fit the columns of every database."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from postroad.dns.providers import MAX_SITE
from postroad.gates.name import Receiver
from postroad.shaping.config import MAX_COLUMN
from postroad.shaping.limits import LimitScope
from postroad.store.engine import read, write
from postroad.store.shaping import ShapingChange, add_change, count_reply, open_changes

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
LONGEST = LimitScope(
    sender="a" * 308 + "@example.com",
    receiver=Receiver("p" * MAX_COLUMN, "s" * MAX_SITE, "d" * MAX_SITE),
)
RULE = "r" * MAX_COLUMN


def test_the_longest_gate_and_rule_are_kept_whole(engine: sa.Engine) -> None:
    assert len(LONGEST.sender) == 320
    change = ShapingChange(
        gate=LONGEST.gate, rule=RULE, sender=LONGEST.sender, provider=LONGEST.provider, reply="421 slower", at=NOW
    )
    with write(engine) as connection:
        assert count_reply(connection, LONGEST.gate, RULE, NOW, 1) == 1
        assert add_change(connection, change)
    with read(engine) as connection:
        (kept,) = open_changes(connection)
    assert (kept.gate, kept.rule, kept.provider) == (LONGEST.gate, RULE, LONGEST.provider)
