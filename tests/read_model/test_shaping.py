"""Changes that slow senders down: which limit now, and the list of all of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from postroad.read_model.shaping import ShapingEntry, open_entries, past_entries
from postroad.store.engine import read, write
from postroad.store.shaping import ShapingChange, add_change
from tests.read_model.world import all_rows
from tests.store.rows import NOW, add_campaign

GOOGLE, SITE = "provider:google:news@example.com", "provider:google/domain.a.dev:news@example.com"


def change(gate: str, rule: str, at: datetime = NOW, **values: object) -> ShapingChange:
    given: dict[str, Any] = {"sender": "news@example.com", "provider": "google", "reply": "421 too fast", "at": at}
    return ShapingChange(gate=gate, rule=rule, **{**given, **values})


def add(engine: sa.Engine, *changes: ShapingChange) -> None:
    with write(engine) as connection:
        assert [add_change(connection, each) for each in changes] == [True] * len(changes)


def opened(engine: sa.Engine, **only: str) -> list[ShapingEntry]:
    with read(engine) as connection:
        return open_entries(connection, NOW, **only)


def test_a_change_limits_until_it_ends_or_is_undone(engine: sa.Engine) -> None:
    minute = timedelta(minutes=1)
    add(
        engine,
        change(GOOGLE, "for-ever", connections=2),
        change(GOOGLE, "later", ends_at=NOW + minute, suspended=True),
        change(GOOGLE, "over", ends_at=NOW),
        change(GOOGLE, "undone", restored_at=NOW - minute, restored_by="ada"),
        change(GOOGLE, "pace", share=1.0, moved_at=NOW),
        change(SITE, "slow", share=0.25, moved_at=NOW),
    )
    found = opened(engine)
    assert [entry.rule for entry in found] == ["slow", "later", "for-ever"]
    assert [(entry.receiver, entry.sets, entry.suspended) for entry in found] == [
        ("google/domain.a.dev", "25% of its pace", False),
        ("google", "suspended", True),
        ("google", "2 at once, until it is resumed", False),
    ]
    with read(engine) as connection:
        everything = past_entries(connection, NOW).rows
    assert {entry.rule for entry in everything if entry.is_open} == {"slow", "later", "for-ever"}
    assert len(everything) == 6


def test_changes_are_those_of_a_sender_at_a_provider_or_everywhere(engine: sa.Engine) -> None:
    with write(engine) as connection:
        add_campaign(connection)
        [name] = connection.execute(sa.text("SELECT name FROM sender")).scalars()
    add(
        engine,
        change(GOOGLE, "a"),
        change("sender:news@example.com", "b", provider=None),
        change("provider:yahoo:news@example.com", "c", provider="yahoo"),
        change("provider:google:x@example.com", "d", sender="x@example.com"),
    )
    assert [entry.rule for entry in opened(engine, provider="google")] == ["d", "b", "a"]
    assert {entry.sender: list(entry.names) for entry in opened(engine)} == {
        "news@example.com": [name],
        "x@example.com": [],
    }
    ours = [entry for entry in opened(engine) if entry.sender == "news@example.com"]
    assert [entry.receiver for entry in ours] == ["yahoo", "", "google"]


def test_all_changes_page_by_key(engine: sa.Engine) -> None:
    add(
        engine,
        *(
            change(GOOGLE, f"rule-{number}", NOW - timedelta(hours=number), restored_at=NOW, restored_by="end")
            for number in range(25)
        ),
        change("provider:google:x@example.com", "other", sender="x@example.com"),
    )
    with read(engine) as connection:
        rows = all_rows(lambda after: past_entries(connection, NOW, after=after, limit=4))
        ours = all_rows(lambda after: past_entries(connection, NOW, sender="news@example.com", after=after, limit=4))
    assert [row.rule for row in rows] == ["other", *(f"rule-{number}" for number in reversed(range(25)))]
    assert ours == rows[1:]
