"""Acts on single messages: cancel, reschedule."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter
from pydantic import Field

from postroad.api.access import ApiRoute, Caller, needs
from postroad.api.fields import WITH_BODY, Answer, CallerParameter, Input, InputTime, MessageNumber, problems
from postroad.api.problems import ProblemKind, invalid
from postroad.delivery.job import job_id
from postroad.errors import StateError
from postroad.operations.touches import MAX_DELAY, cancel_touches, require_waiting, reschedule_touches
from postroad.settings import AccessRole
from postroad.store.touch_lookup import FoundTouch
from postroad.touch_search import find_touches, queue_of_touch

router = APIRouter(route_class=ApiRoute, tags=["messages"])


class MessageCancelled(Answer):
    """What a call did."""

    id: int
    cancelled: bool = Field(description="false: it left before it was cancelled")


class ScheduleInput(Input):
    """When to send a message."""

    at: InputTime = Field(description="it is not sent before this time, which is in the next 366 days")


class MessageRescheduled(Answer):
    """What a call did."""

    id: int
    rescheduled: bool = Field(description="false: it is not scheduled in the queue, so its time was not changed")


@router.post("/messages/{id}/cancel", responses=problems(ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.OPERATE)
async def cancel_message(id: MessageNumber, caller: CallerParameter) -> MessageCancelled:  # noqa: A002  (name of the parameter)
    """Cancel a message that waits, for good. One that is on the wire finishes."""
    context = caller.parts.context
    touch = await _waiting(caller, id)
    queue = await context.queue(queue_of_touch(touch))
    async with caller.act("message.cancel", str(id), note=touch.address) as act:
        act.count = await cancel_touches(context.engine, queue, [job_id(id)], context.clock.now())
    return MessageCancelled(id=id, cancelled=bool(act.count))


@router.post("/messages/{id}/reschedule", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.OPERATE)
async def reschedule_message(
    id: MessageNumber,  # noqa: A002  (name of the parameter)
    schedule: ScheduleInput,
    caller: CallerParameter,
) -> MessageRescheduled:
    """Send a message that is scheduled in the queue at another time. Limits and sending windows hold as before."""
    context = caller.parts.context
    if not timedelta() < schedule.at - context.clock.now() <= MAX_DELAY:
        raise invalid("at", f"it is not within the next {MAX_DELAY.days} days")
    touch = await _waiting(caller, id)
    queue = await context.queue(queue_of_touch(touch))
    async with caller.act("message.reschedule", str(id), note=f"{touch.address}: {schedule.at.isoformat()}") as act:
        due_ms = int(schedule.at.timestamp() * 1000)
        act.count = await reschedule_touches(context.engine, queue, [job_id(id)], due_ms)
    return MessageRescheduled(id=id, rescheduled=bool(act.count))


async def _waiting(caller: Caller, touch_id: int) -> FoundTouch:
    """Return a message that waits.

    Raises:
        StateError: There is no such message, or it has ended or is on the wire.
    """
    found = await find_touches(caller.parts.context, job_id(touch_id))
    if not found:
        raise StateError(f"there is no message {touch_id}", remedy="Its retention may be over.", missing=True)
    [touch] = found
    require_waiting(touch)
    return touch
