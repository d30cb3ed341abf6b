"""What one does to one message: cancel, reschedule, decide. Each says first what it touches."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import Path, Response

from postroad.app.undecided import Decision, decisions_for
from postroad.console.authorise import CurrentVisit
from postroad.console.confirm import Confirmation, Extent, FieldKind, FormField, reason_field
from postroad.console.decisions import TEXTS, messages
from postroad.console.forms import ConsoleForm
from postroad.console.page_url import page_url
from postroad.console.screens.undecided import MAX_REASON, REASON_HINT, decide_about, posted_decision
from postroad.console.screens.why import MAX_SUBJECT, SubjectText, screen
from postroad.console.visit import BackText, Visit, local_path, posted_back
from postroad.errors import StateError
from postroad.operations.touches import MAX_DELAY, cancel_touches, require_waiting, reschedule_touches
from postroad.settings import AccessRole
from postroad.store.ledger import TouchState
from postroad.store.touch_lookup import FoundTouch, touch_by_id
from postroad.touch_search import queue_of_touch

TouchId = Annotated[int, Path(ge=1, lt=2**63)]


def _why_url(subject: str) -> str:
    return page_url("why", q=subject)


async def _found(visit: Visit, touch: int) -> FoundTouch:
    found = await visit.read(touch_by_id, touch)
    if found is None:
        raise StateError(f"there is no message {touch}", remedy="Its retention may be over.")
    return found


def _extent(touch: int, label: str) -> Extent:
    return Extent(count=1, label=label, href=_why_url(str(touch)))


def _subject(form: ConsoleForm, touch: int) -> str:
    return form.text("q", max_characters=MAX_SUBJECT, required=False) or str(touch)


def _cancellation(touch: int, subject: str) -> Confirmation:
    return Confirmation(
        title=f"Cancel message {touch}?",
        button="Cancel it",
        action=f"/messages/{touch}/cancel",
        back=_why_url(subject),
        extents=[_extent(touch, "message that will not be sent")],
        effects=["This cannot be undone. If it is on the wire now, it finishes."],
        hidden={"q": subject},
        dangerous=True,
    )


@screen.get("/messages/{touch}/cancel", role=AccessRole.OPERATE)
async def ask_cancel(visit: CurrentVisit, touch: TouchId, q: SubjectText = "") -> Response:
    """Ask whether to cancel one message."""
    return visit.confirm(_cancellation(touch, q or str(touch)))


@screen.post("/messages/{touch}/cancel", role=AccessRole.OPERATE)
async def cancel(visit: CurrentVisit, touch: TouchId) -> Response:
    """Cancel one message that is not on the wire."""
    subject = _subject(await visit.form(), touch)
    found = await _found(visit, touch)
    require_waiting(found)
    queue = await visit.parts.queue(queue_of_touch(found))
    async with visit.act("message.cancel", str(touch), note=found.address) as act:
        act.count = await cancel_touches(visit.parts.engine, queue, [str(touch)], visit.parts.now())
    if not act.count:
        return visit.redirect(_why_url(subject), f"Message {touch} left before it was cancelled.")
    return visit.redirect(_why_url(subject), f"Message {touch} is cancelled.")


def _rescheduling(visit: Visit, touch: int, subject: str, *, value: str = "", error: str = "") -> Confirmation:
    zone = visit.parts.zone
    local = (visit.parts.now() + timedelta(hours=1)).astimezone(zone)
    return Confirmation(
        title=f"Send message {touch} at another time?",
        button="Reschedule it",
        action=f"/messages/{touch}/reschedule",
        back=_why_url(subject),
        extents=[_extent(touch, "message that is not sent before this time")],
        effects=["Limits, pauses and sending windows hold as before. A message that expires before it is not sent."],
        fields=[
            FormField(
                name="at",
                label="Not before",
                kind=FieldKind.TIME,
                value=value or f"{local:%Y-%m-%dT%H:%M}",
                hint=f"In {zone.key}.",
                error=error,
            )
        ],
        hidden={"q": subject},
    )


@screen.get("/messages/{touch}/reschedule", role=AccessRole.OPERATE)
async def ask_reschedule(visit: CurrentVisit, touch: TouchId, q: SubjectText = "") -> Response:
    """Ask when to send one message."""
    return visit.confirm(_rescheduling(visit, touch, q or str(touch)))


@screen.post("/messages/{touch}/reschedule", role=AccessRole.OPERATE)
async def reschedule(visit: CurrentVisit, touch: TouchId) -> Response:
    """Change the time of one message that is scheduled in the queue."""
    form = await visit.form()
    subject, at = _subject(form, touch), form.time("at", visit.parts.zone)
    now = visit.parts.now()
    if at is not None and not timedelta() < at - now <= MAX_DELAY:
        form.errors["at"] = f"Choose a time within the next {MAX_DELAY.days} days."
    if at is None or form.errors:
        error = form.errors.get("at", "")
        return visit.confirm(_rescheduling(visit, touch, subject, value=form.raw("at")[:40], error=error), status=422)
    found = await _found(visit, touch)
    queue = await visit.parts.queue(queue_of_touch(found))
    async with visit.act("message.reschedule", str(touch), note=f"{found.address}: {at.isoformat()}") as act:
        due_ms = int(at.timestamp() * 1000)
        act.count = await reschedule_touches(visit.parts.engine, queue, [str(touch)], due_ms)
    if not act.count:
        return visit.redirect(_why_url(subject), f"Message {touch} is not scheduled, so its time was not changed.")
    return visit.redirect(_why_url(subject), f"Message {touch} is not sent before {at:%Y-%m-%d %H:%M %Z}.")


def _decidable(found: FoundTouch) -> TouchState:
    """Return the state about which one decides. What is on the wire may be uncertain for the queue already."""
    return TouchState.UNKNOWN if found.state is TouchState.SENDING else found.state


def _require_decision(found: FoundTouch, decision: Decision) -> TouchState:
    state = _decidable(found)
    if decision not in decisions_for(state):
        raise StateError(
            f"message {found.id} is {found.state}, so this cannot be decided",
            remedy="Only unknown and dead messages are decided. Its page shows what became of it.",
        )
    return state


def _decision(
    found: FoundTouch, state: TouchState, decision: Decision, back: str, *, note: str = "", error: str = ""
) -> Confirmation:
    text = TEXTS[state, decision]
    return Confirmation(
        title=text.question.format(what=f"message {found.id}"),
        button=text.button,
        action=f"/messages/{found.id}/decide",
        back=back,
        extents=[_extent(found.id, text.extent)],
        effects=[f"It is to {found.address}, of campaign {found.campaign}, step {found.step}.", *text.effects],
        fields=[reason_field(note, error, REASON_HINT)],
        hidden={"decision": decision, "back": back},
        dangerous=text.dangerous,
    )


@screen.get("/messages/{undecided}/decide", role=AccessRole.OPERATE)
async def ask_decide(visit: CurrentVisit, undecided: TouchId, decision: Decision, back: BackText = "") -> Response:
    """Ask about one undecided message."""
    found = await _found(visit, undecided)
    state = _require_decision(found, decision)
    return visit.confirm(_decision(found, state, decision, local_path(back or _why_url(str(undecided)))))


@screen.post("/messages/{undecided}/decide", role=AccessRole.OPERATE)
async def decide_one(visit: CurrentVisit, undecided: TouchId) -> Response:
    """Decide about one message."""
    form = await visit.form()
    note = form.text("note", max_characters=MAX_REASON, required=False)
    back = posted_back(form, _why_url(str(undecided)))
    decision = posted_decision(form)
    found = await _found(visit, undecided)
    state = _require_decision(found, decision)
    if form.errors:
        return visit.confirm(_decision(found, state, decision, back, note=note, error=form.errors["note"]), status=422)
    number = await decide_about(visit, [found], state, decision, target=str(found.id), note=note)
    if not number:
        return visit.redirect(back, f"Message {found.id} was decided meanwhile, or is skipped.")
    return visit.redirect(back, TEXTS[state, decision].done.format(what=messages(number)))
