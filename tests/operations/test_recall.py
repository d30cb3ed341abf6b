"""A recall stops what has not left, of a campaign or of one step, and tells who got it."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import advance
from postroad.campaign.status import finish_if_done
from postroad.delivery.admit import Admission
from postroad.delivery.job import SendJob, encode_job, job_id
from postroad.delivery.result import DeliveryResult, encode_result
from postroad.errors import StateError
from postroad.operations.recall import RecallResult, reached_recipients, recall
from postroad.queue import Defer, Done, Job, Queue
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.touches.sending import Claim, admit, requeue_dead
from tests.delivery.queue_of_touches import claim, lane, recorder, state_of
from tests.kit.clock import FakeClock
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

S = TouchState
NOTE = encode_result(DeliveryResult(state=S.ACCEPTED, cause="accepted"))


class Sequence:
    """A running campaign of three emails, and touches of them in the ledger and in the queue."""

    def __init__(self, engine: sa.Engine, queue: Queue, state: CampaignState = CampaignState.RUNNING) -> None:
        self.engine, self.queue = engine, queue
        with write(engine) as connection:
            self.campaign, self.steps = add_campaign(
                connection, name="spring", steps=({}, {}, {}), state=state, launched_at=NOW
            )

    def add(self, step: int, state: TouchState, address: str) -> int:
        with write(self.engine) as connection:
            settled = NOW if state.ended else None
            found = sa.text("SELECT id FROM recipient WHERE address = :address")
            recipient = connection.execute(found, {"address": address}).scalar() or add_recipient(connection, address)
            return add_touch(
                connection, self.campaign, self.steps[step], state, recipient_id=recipient, settled_at=settled
            )

    async def enqueue(self, *touches: int, step: int = 0) -> None:
        jobs = [
            Job(
                id=job_id(touch),
                payload=encode_job(
                    SendJob(touch_id=touch, step_id=self.steps[step], address=f"{touch}@x.example", fields={})
                ),
            )
            for touch in touches
        ]
        await self.queue.enqueue(lane(), jobs)

    async def recall(self, step: str | None = None) -> RecallResult:
        return await recall(self.engine, self.queue, "spring", step, NOW)


async def test_a_recalled_campaign_sends_nothing_more_and_lists_who_got_it(engine: sa.Engine, queue: Queue) -> None:
    sequence = Sequence(engine, queue)
    states = (S.ACCEPTED, S.UNKNOWN, S.SENDING, S.BOUNCED, S.QUEUED, S.PLANNED, S.DEFERRED)
    touches = {state: sequence.add(0, state, f"{state}@example.com") for state in states}
    sequence.add(1, S.ACCEPTED, "accepted@example.com")
    await sequence.enqueue(touches[S.QUEUED], touches[S.DEFERRED])
    result = await sequence.recall()
    assert result.state is CampaignState.CANCELLED
    assert {state: count for state, count in result.counts.items() if count} == {
        S.ACCEPTED: 2,
        S.UNKNOWN: 1,
        S.SENDING: 1,
        S.BOUNCED: 1,
        S.CANCELLED: 3,
    }
    assert await claim(queue) == []
    reached = [(one.address, one.step, one.state) for one in reached_recipients(engine, "spring", None)]
    assert reached == [
        ("accepted@example.com", "step-1", "accepted"),
        ("unknown@example.com", "step-1", "unknown"),
        ("sending@example.com", "step-1", "sending"),
        ("accepted@example.com", "step-2", "accepted"),
    ]
    assert await sequence.recall() == result, "again: nothing changes"


async def test_a_recalled_step_is_sent_to_no_one_and_others_continue(engine: sa.Engine, queue: Queue) -> None:
    sequence = Sequence(engine, queue)
    first = sequence.add(0, S.QUEUED, "a@example.com")
    waiting = sequence.add(1, S.QUEUED, "b@example.com")
    sequence.add(1, S.ACCEPTED, "c@example.com")
    later = sequence.add(2, S.QUEUED, "d@example.com")
    await sequence.enqueue(first)
    await sequence.enqueue(waiting, step=1)
    await sequence.enqueue(later, step=2)
    result = await sequence.recall("step-2")
    assert (result.step, result.state) == ("step-2", CampaignState.RUNNING)
    assert (result.counts[S.CANCELLED], result.counts[S.ACCEPTED]) == (1, 1)
    batch = await claim(queue)
    assert {int(job.id) for job in batch} == {first, later}
    assert await Admission(engine, FakeClock())(batch) == {}
    await queue.settle("w", [(job, Done(note=NOTE)) for job in batch])
    await recorder(engine, queue).drain()
    # The recalled step is planned as cancelled, and so ends the sequence. Recipients who got it get the next email.
    assert advance(engine, "spring", NOW + timedelta(days=30)) == 2
    with read(engine) as connection:
        rows = connection.execute(
            sa.text(
                "SELECT step_id, recipient.address, state FROM touch JOIN recipient ON recipient.id = recipient_id "
                "WHERE touch.id > :last ORDER BY touch.id"
            ),
            {"last": later},
        ).all()
    assert [tuple(row) for row in rows] == [
        (sequence.steps[1], "a@example.com", "cancelled"),
        (sequence.steps[2], "c@example.com", "planned"),
    ]
    assert advance(engine, "spring", NOW + timedelta(days=30)) == 0
    assert not finish_if_done(engine, "spring", NOW)


async def test_a_message_on_the_wire_that_is_deferred_is_not_sent_after_a_recall(
    engine: sa.Engine, queue: Queue
) -> None:
    sequence = Sequence(engine, queue)
    touch = sequence.add(0, S.QUEUED, "a@example.com")
    await sequence.enqueue(touch)
    [job] = await claim(queue)
    assert await Admission(engine, FakeClock())([job]) == {}
    result = await sequence.recall("step-1")
    assert result.counts[S.SENDING] == 1
    note = encode_result(DeliveryResult(state=S.DEFERRED, cause="greylisted"))
    await queue.settle("w", [(job, Defer(cause="greylisted", note=note))])
    await recorder(engine, queue).drain()
    assert state_of(engine, touch) is S.DEFERRED
    [again] = await claim(queue)
    verdicts = await Admission(engine, FakeClock())([again])
    assert [getattr(verdict, "cause", "") for verdict in verdicts.values()] == ["step recalled"]
    await queue.settle("w", [(again, verdicts[again.id])])
    await recorder(engine, queue).drain()
    assert state_of(engine, touch) is S.CANCELLED


async def test_a_finished_campaign_lists_who_got_it_and_stays_finished(engine: sa.Engine, queue: Queue) -> None:
    sequence = Sequence(engine, queue, CampaignState.FINISHED)
    sequence.add(0, S.ACCEPTED, "a@example.com")
    result = await sequence.recall()
    assert (result.state, result.counts[S.ACCEPTED]) == (CampaignState.FINISHED, 1)


async def test_unknown_names_and_drafts_are_rejected(engine: sa.Engine, queue: Queue) -> None:
    with pytest.raises(StateError, match="no campaign"):
        await recall(engine, queue, "gone", None, NOW)
    sequence = Sequence(engine, queue)
    with pytest.raises(StateError, match="step-2"):
        await sequence.recall("step-22")
    with write(engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = 'draft'"))
    with pytest.raises(StateError, match="was not launched"):
        await sequence.recall()


async def test_a_recall_of_a_finished_campaign_holds_for_its_dead_letters(engine: sa.Engine, queue: Queue) -> None:
    sequence = Sequence(engine, queue)
    dead = sequence.add(0, S.DEAD, "ada@example.com")
    assert finish_if_done(engine, "spring", NOW)
    assert (await sequence.recall()).state is CampaignState.FINISHED
    with write(engine) as connection:
        assert requeue_dead(connection, [dead]) == {dead: "spring"}
        assert admit(connection, [Claim(dead, 3)]) == set()
