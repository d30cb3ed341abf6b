"""A database of an earlier version, in the middle of a campaign, is upgraded, and the campaign continues.

The earlier version is its own migrations and its own way to write rows: the SQL here names the columns that each
revision has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import advance
from postroad.campaign.status import finish_if_done
from postroad.delivery.recorder import record
from postroad.queue import Event, EventKind
from postroad.read_model.people import audiences
from postroad.settings import BounceSettings
from postroad.store import migrate
from postroad.store.engine import open_engine, read, write
from postroad.store.ledger import TouchState
from postroad.store.overflow import moved
from postroad.store.touch_count import counts_by_step
from postroad.store.touches.ending import suppress_touches
from postroad.store.touches.sending import Claim, admit, mark_queued
from tests.postgresql import assert_counts_agree
from tests.store.rows import NOW

S = TouchState
STATES = [state for state in TouchState if state not in (S.AWAITING, S.WITHHELD)]
"""States of touches without variants and rollouts, which no earlier version has."""
REVISIONS = ("0015", "0019", "0023", "0045", migrate.newest_revision())
"""Before the counts of touches and the marks of follow-ups; before runs of campaigns and consents; the last ones."""

ACCEPTED_NOTE = (
    b"\x86\xa4type\xabdelivery.v1\xa5state\xa8accepted\xa5cause\xa8accepted\xaareply_code\xcc\xfa"
    b"\xadenhanced_code\xa52.0.0\xa5reply\xac250 2.0.0 ok"
)
"""What a worker of the version before put into the queue."""
CLAIM = 1_790_000_000_000_005


class OldDatabase:
    """Rows of a campaign of two emails, written into the tables as they were at a revision."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.touches: dict[TouchState, int] = {}
        audience = self.add("audience", name="people", created_at=NOW)
        sender = self.add(
            "sender",
            name="news",
            address="news@example.com",
            display_name="News",
            postal_address="1 High Street",
            route="relay",
        )
        self.campaign = self.add(
            "campaign",
            name="spring",
            state="running",
            audience_id=audience,
            sender_id=sender,
            job_class="normal",
            time_zone="UTC",
            on_reply="stop",
            created_at=NOW,
            launched_at=NOW,
        )
        self.steps = [
            self.add(
                "step",
                campaign_id=self.campaign,
                position=place,
                name=f"email-{place}",
                kind="email",
                settings={"subject": "Hello", "text": "Hello", "html": None, "at": None},
            )
            for place in (1, 2)
        ]
        imported = self.add(
            "audience_import",
            audience_id=audience,
            path="people.csv",
            sha256="",
            current_key="x",
            rows_total=0,
            cursor=0,
            line=1,
            rows_done=0,
            imported=0,
            duplicates=0,
            refused=0,
            started_at=NOW,
        )
        for state in STATES:
            recipient = self.add(
                "recipient",
                address=f"{state}@example.com",
                domain="example.com",
                attributes={},
                created_at=NOW,
            )
            self.touches[state] = self.add(
                "touch",
                campaign_id=self.campaign,
                step_id=self.steps[0],
                recipient_id=recipient,
                state=state.value,
                due_at=NOW,
                claim=CLAIM if state in (S.SENDING, S.UNKNOWN) else 0,
                next_at=NOW if state is S.DEFERRED else None,
                settled_at=NOW if state.ended else None,
                follow_up=True,
            )
            members = sa.Table("audience_member", sa.MetaData(), autoload_with=connection)
            member = {"audience_id": audience, "recipient_id": recipient, "import_id": imported}
            connection.execute(sa.insert(members).values(**member))
        senders = {"from_sender_id": sender, "sender_id": sender}
        self.overflow = self.add("overflow", touch_id=self.touches[S.DEAD], **senders, at=NOW, why="caps")

    def add(self, name: str, /, **values: Any) -> int:
        """Insert a row, without the columns that the table does not have yet. Returns its id."""
        table = sa.Table(name, sa.MetaData(), autoload_with=self.connection)
        columns = {key: value for key, value in values.items() if key in table.c}
        return int(self.connection.execute(sa.insert(table).values(**columns).returning(table.c.id)).scalar_one())


@pytest.fixture(params=REVISIONS)
def old(request: pytest.FixtureRequest, empty_database_url: str) -> Iterator[tuple[sa.Engine, OldDatabase]]:
    """An engine on a database of an earlier revision, and its rows."""
    engine = open_engine(empty_database_url)
    with write(engine) as connection:
        migrate.run_migrations(connection, request.param)
    with write(engine) as connection:
        database = OldDatabase(connection)
    yield engine, database
    engine.dispose()


def test_rows_of_before_are_counted_and_found(old: tuple[sa.Engine, OldDatabase]) -> None:
    engine, database = old
    before = migrate.current_revision(engine)
    migrate.upgrade(engine)
    with read(engine) as connection:
        assert [row.members for row in audiences(connection).rows] == [len(STATES)]
        moves = moved(connection, database.campaign)
    assert [each.states for each in moves] == [{S.DEAD: 1}] * (before != migrate.newest_revision())
    assert_counts_agree(engine)


def states(connection: sa.Connection) -> dict[int, TouchState]:
    return {row.id: TouchState(row.state) for row in connection.execute(sa.text("SELECT id, state FROM touch"))}


def event(touch: int, kind: EventKind, note: bytes) -> Event:
    return Event(
        entry=f"{touch}-0",
        id=str(touch),
        token=CLAIM,
        kind=kind,
        at_ms=int(NOW.timestamp() * 1000),
        attempt=1,
        claim=1,
        next_ms=0,
        cause="",
        error="",
        note=note,
    )


def test_a_campaign_in_progress_continues_after_an_upgrade(old: tuple[sa.Engine, OldDatabase]) -> None:
    engine, database = old
    touches = database.touches
    assert migrate.upgrade(engine) == migrate.newest_revision()
    with read(engine) as connection:
        assert states(connection) == {touch: state for state, touch in touches.items()}
        assert counts_by_step(connection, database.campaign) == {database.steps[0]: dict.fromkeys(STATES, 1)}

    # Events that the version before left in the queue.
    with write(engine) as connection:
        sent = [event(touches[S.SENDING], EventKind.DONE, ACCEPTED_NOTE)]
        late = [event(touches[S.UNKNOWN], EventKind.LATE, ACCEPTED_NOTE)]
        assert record(connection, sent + late, NOW, BounceSettings()) == 2
        after = states(connection)
    assert {after[touches[S.SENDING]], after[touches[S.UNKNOWN]]} == {S.ACCEPTED}

    # What was planned is queued, and what waits is sent; a claim that is repeated is rejected.
    waiting = [touches[S.PLANNED], touches[S.QUEUED], touches[S.DEFERRED]]
    with write(engine) as connection:
        assert mark_queued(connection, waiting) == 1
        claims = [Claim(touch, CLAIM + 1) for touch in touches.values()]
        assert admit(connection, claims) == set(waiting)
        assert admit(connection, claims) == set()
        done = [event(touch, EventKind.DONE, ACCEPTED_NOTE) for touch in waiting]
        assert record(connection, done, NOW, BounceSettings()) == 3

    # The next email is planned for each first one that was accepted or skipped, and for no other.
    assert advance(engine, "spring", NOW) == 7
    assert advance(engine, "spring", NOW) == 0
    with write(engine) as connection:
        counts = counts_by_step(connection, database.campaign)
        assert counts[database.steps[1]] == {S.PLANNED: 7}
        follow_ups = [touch for touch, state in states(connection).items() if state is S.PLANNED]
        assert len(suppress_touches(connection, follow_ups, NOW)) == 7
    assert finish_if_done(engine, "spring", NOW)
    with read(engine) as connection:
        by_state = Counter(states(connection).values())
    assert by_state == {
        S.ACCEPTED: 6,
        S.BOUNCED: 1,
        S.SUPPRESSED: 1 + 7,
        S.CANCELLED: 1,
        S.SKIPPED: 1,
        S.EXPIRED: 1,
        S.DEAD: 1,
    }
    assert_counts_agree(engine)
