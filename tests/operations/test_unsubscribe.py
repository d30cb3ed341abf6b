"""Unsubscribing suppresses the recipient and ends waiting mail, whichever way they asked for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest
import sqlalchemy as sa

from postroad.delivery.job import job_id
from postroad.errors import UnavailableError
from postroad.operations.unsubscribe import unsubscribe
from postroad.queue import Job, JobState, Queue
from postroad.settings import UnsubscribeScope
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason, suppress
from postroad.store.unsubscribe import Unsubscribed, unsubscribe_touch
from tests.delivery.queue_of_touches import lane, noted, state_of
from tests.store.rows import NOW, add_audience, add_campaign, add_recipient, add_touch

WAITING = (TouchState.WITHHELD, TouchState.AWAITING, TouchState.PLANNED, TouchState.QUEUED, TouchState.DEFERRED)


def opened(queue: Queue) -> Callable[[], Awaitable[Queue]]:
    async def open_() -> Queue:
        return queue

    return open_


async def unopened() -> Queue:
    raise AssertionError("no job of it can be on the queue")


class Story:
    """A recipient with a touch in every state of one campaign, and one that waits in a campaign to others."""

    def __init__(self, engine: sa.Engine) -> None:
        with write(engine) as connection:
            self.recipient = add_recipient(connection, "ada@example.com")
            self.audience = add_audience(connection, [self.recipient])
            steps: list[dict[str, Any]] = [{} for _ in TouchState]
            campaign, ids = add_campaign(connection, audience_id=self.audience, steps=steps)
            self.touches = {
                state: add_touch(connection, campaign, step, state, recipient_id=self.recipient)
                for state, step in zip(TouchState, ids, strict=True)
            }
            other, (step,) = add_campaign(connection)
            self.elsewhere = add_touch(connection, other, step, TouchState.QUEUED, recipient_id=self.recipient)
            self.bystander = add_touch(connection, campaign, ids[0], TouchState.QUEUED)


def kept(engine: sa.Engine) -> list[tuple[object, ...]]:
    with read(engine) as connection:
        rows = connection.execute(sa.text("SELECT address, audience_id, reason, source FROM suppression"))
        return [tuple(row) for row in rows]


async def test_waiting_touches_end_and_one_on_the_wire_continues(engine: sa.Engine, queue: Queue) -> None:
    story = Story(engine)
    jobs = [story.touches[TouchState.QUEUED], story.elsewhere, story.bystander]
    await queue.enqueue(lane(), [Job(id=job_id(touch), payload=b"") for touch in jobs])
    accepted = story.touches[TouchState.ACCEPTED]
    done = await unsubscribe(engine, opened(queue), accepted, "reply", NOW)
    assert done == Unsubscribed(first=True, suppressed=True, ended=done.ended if done else ())
    ended = {story.touches[state] for state in WAITING} | {story.elsewhere}
    assert done is not None
    assert set(done.ended) == ended
    after = {state: state_of(engine, touch) for state, touch in story.touches.items()}
    assert after == {state: TouchState.SUPPRESSED if state in WAITING else state for state in TouchState}
    assert state_of(engine, story.elsewhere) == TouchState.SUPPRESSED
    known = await queue.states([job_id(touch) for touch in jobs])
    assert known == [JobState.REMEMBERED, JobState.REMEMBERED, JobState.QUEUED]
    assert kept(engine) == [("ada@example.com", 0, "unsubscribe", "reply")]
    assert noted(engine, accepted) == [("accepted", "unsubscribe", "reply")]


async def test_unsubscribing_again_changes_nothing(engine: sa.Engine, queue: Queue) -> None:
    story = Story(engine)
    first, again = story.touches[TouchState.ACCEPTED], story.touches[TouchState.DEFERRED]
    await unsubscribe(engine, opened(queue), first, "link", NOW)
    nothing = Unsubscribed(first=False, suppressed=False, ended=())
    assert await unsubscribe(engine, unopened, first, "link", NOW) == nothing
    assert await unsubscribe(engine, unopened, again, "reply", NOW) == replace(nothing, first=True)
    assert kept(engine) == [("ada@example.com", 0, "unsubscribe", "link")]
    assert len(noted(engine, first)) == 1


async def test_scope_audience_ends_only_its_campaigns(engine: sa.Engine, queue: Queue) -> None:
    story = Story(engine)
    scope = UnsubscribeScope.AUDIENCE
    done = await unsubscribe(engine, opened(queue), story.touches[TouchState.ACCEPTED], "link", NOW, scope)
    assert done is not None
    assert set(done.ended) == {story.touches[state] for state in WAITING}
    assert state_of(engine, story.elsewhere) == TouchState.QUEUED
    assert kept(engine) == [("ada@example.com", story.audience, "unsubscribe", "link")]


async def test_an_unknown_touch_id_changes_nothing(engine: sa.Engine) -> None:
    assert await unsubscribe(engine, unopened, 987_654_321, "link", NOW) is None
    assert kept(engine) == []


async def test_a_failed_transaction_leaves_no_change(engine: sa.Engine) -> None:
    story = Story(engine)
    with write(engine) as connection:
        connection.execute(sa.text("DROP TABLE delivery_event"))
    with pytest.raises((UnavailableError, sa.exc.ProgrammingError)):
        await unsubscribe(engine, unopened, story.elsewhere, "link", NOW)
    assert kept(engine) == []
    assert state_of(engine, story.elsewhere) == TouchState.QUEUED


def test_concurrent_requests_of_one_recipient_count_once(engine: sa.Engine) -> None:
    story = Story(engine)
    found: list[Unsubscribed | None] = []
    scope = UnsubscribeScope.EVERYWHERE

    def say() -> None:
        with write(engine) as connection:
            found.append(unsubscribe_touch(connection, story.elsewhere, "link", NOW, scope))

    threads = [Thread(target=say) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [done.first for done in found if done is not None].count(True) == 1
    assert len(found) == 8
    assert sum(len(done.ended) for done in found if done is not None) == len(WAITING) + 1


async def test_unsubscribing_upgrades_a_suppression_for_a_bounce(engine: sa.Engine, queue: Queue) -> None:
    story = Story(engine)
    with write(engine) as connection:
        suppress(connection, ["ada@example.com"], SuppressionReason.HARD_BOUNCE, "550 5.1.1", NOW)
    await unsubscribe(engine, opened(queue), story.touches[TouchState.ACCEPTED], "page", NOW)
    assert kept(engine) == [("ada@example.com", 0, "unsubscribe", "page")]
