"""A queue and its ledger, for tests of what changes both."""

from __future__ import annotations

import sqlalchemy as sa

from postroad.clock import SystemClock
from postroad.delivery.job import job_id, lane_of
from postroad.delivery.recorder import Recorder
from postroad.gates.name import Receiver
from postroad.queue import ClaimedJob, Job, Lane, Queue
from postroad.settings import BounceSettings
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState, delivery_events
from tests.store.rows import add_campaign, add_touch, touch_row


def lane(campaign: str = "spring") -> Lane:
    return lane_of(
        sender="a@example.com", receiver=Receiver("other"), campaign=campaign, route="relay", job_class="bulk"
    )


def recorder(engine: sa.Engine, queue: Queue) -> Recorder:
    return Recorder(engine=engine, queue=queue, clock=SystemClock(), name="r", bounce=BounceSettings())


async def claim(queue: Queue, want: int = 100) -> list[ClaimedJob]:
    nonce = str((await queue.stats()).counters)
    return (await queue.claim("w", want=want, lease_ms=60_000, nonce=nonce)).jobs


async def queued_touches(engine: sa.Engine, queue: Queue, count: int, *, due_ms: int = 0) -> list[int]:
    """Touches of a running campaign named `spring`, in the ledger and in the queue."""
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring")
        touches = [add_touch(connection, campaign, step, TouchState.QUEUED) for _ in range(count)]
    await queue.enqueue(lane(), [Job(id=job_id(touch), payload=b"", due_ms=due_ms) for touch in touches])
    return touches


def set_state(engine: sa.Engine, touch: int, state: TouchState) -> None:
    with write(engine) as connection:
        connection.execute(
            sa.text("UPDATE touch SET state = :state, claim = 1 WHERE id = :id"), {"state": state.value, "id": touch}
        )


def state_of(engine: sa.Engine, touch: int) -> TouchState:
    with read(engine) as connection:
        return touch_row(connection, touch).state


def noted(engine: sa.Engine, touch: int) -> list[tuple[object, ...]]:
    """State, cause and words of each thing noted about a touch."""
    with read(engine) as connection:
        return [(row[1], row[3], row[4]) for row in delivery_events(connection, touch)]
