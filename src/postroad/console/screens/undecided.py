"""Undecided: messages about which a person decides, by cause, and the decisions about all of a cause."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

import sqlalchemy as sa
from fastapi import Query, Response

from postroad.app.undecided import Decision, decide, decisions_for
from postroad.console.authorise import CurrentVisit
from postroad.console.campaign_view import TOUCH_TONES, campaign_url
from postroad.console.confirm import Confirmation, Extent, reason_field
from postroad.console.decisions import TEXTS, cause_decisions, message_decisions, messages, rows_url
from postroad.console.forms import ConsoleForm
from postroad.console.queue_reply import queue_reply
from postroad.console.screen import NavSection, Screen
from postroad.console.visit import Visit
from postroad.delivery.job import MAIL_QUEUES, job_id, touch_of
from postroad.errors import PostroadError, UsageError
from postroad.queue import UncertainJob
from postroad.read_model.page import MAX_LIMIT
from postroad.read_model.undecided import CauseCount, undecided_counts, undecided_touches
from postroad.settings import AccessRole
from postroad.store.ledger import UNDECIDED, TouchState
from postroad.store.touch_lookup import FoundTouch, touches_by_ids
from postroad.touch_search import queue_of_touch

screen = Screen(name="undecided", title="Undecided", path="/undecided", section=NavSection.DELIVERY)

MAX_OF_ACT: Final = MAX_LIMIT
"""Messages that one act decides about."""
MAX_JOBS: Final = 200
MAX_REASON: Final = 300
REASON_HINT: Final = "How it is known. It is kept in the audit log."

CauseText = Annotated[str, Query(max_length=200)]
Cursor = Annotated[str | None, Query(max_length=200)]


@dataclass(frozen=True, kw_only=True)
class UncertainCounts:
    """Uncertain jobs by queue of mail. ``problem``: why they are not known."""

    jobs: Mapping[str, int]
    problem: PostroadError | None = None


@screen.get("/undecided", role=AccessRole.VIEW)
async def undecided(visit: CurrentVisit) -> Response:
    """Show the undecided messages by cause."""
    counts, uncertain = await asyncio.gather(visit.read(undecided_counts), _uncertain_counts(visit))
    by_state: dict[TouchState, list[CauseCount]] = {
        state: [count for count in counts if count.state is state] for state in UNDECIDED
    }
    return visit.page(
        "undecided.html",
        by_state=by_state,
        totals={state: sum(count.touches for count in rows) for state, rows in by_state.items()},
        uncertain=uncertain,
        rows_url=rows_url,
        decisions=cause_decisions,
    )


async def _uncertain_counts(visit: Visit) -> UncertainCounts:
    async def ask() -> UncertainCounts:
        found = {name: (await (await visit.parts.queue(name)).stats()).uncertain for name in MAIL_QUEUES}
        return UncertainCounts(jobs={name: jobs for name, jobs in found.items() if jobs})

    found = await queue_reply(ask())
    return UncertainCounts(jobs={}, problem=found) if isinstance(found, PostroadError) else found


@screen.get("/undecided/messages", role=AccessRole.VIEW)
async def of_cause(
    visit: CurrentVisit, state: TouchState = TouchState.DEAD, cause: CauseText = "", after: Cursor = None
) -> Response:
    """List the messages of one state and cause."""
    _require_undecided(state)
    page = await visit.read(undecided_touches, state=state, cause=cause, after=after)
    return visit.page(
        "undecided_messages.html",
        page=page,
        state=state,
        cause=cause,
        first=after is None,
        number=await _number(visit, state, cause),
        decisions=cause_decisions(state, cause),
        decisions_of=lambda touch: message_decisions(touch, state, visit.here),
        url_of=campaign_url,
    )


def _require_undecided(state: TouchState) -> None:
    if state not in UNDECIDED:
        raise UsageError(f"{state} messages are decided", remedy="Open the page Undecided.")


async def _number(visit: Visit, state: TouchState, cause: str) -> int:
    """Return the number of messages of a cause."""
    counts = await visit.read(undecided_counts)
    return sum(count.touches for count in counts if (count.state, count.cause) == (state, cause))


@dataclass(frozen=True, kw_only=True)
class UncertainRow:
    """An uncertain job. ``touch``: its message; None: the ledger does not have it. ``since``: when it was begun."""

    job: UncertainJob
    touch: FoundTouch | None
    since: datetime


@screen.get("/undecided/uncertain", role=AccessRole.VIEW)
async def uncertain(visit: CurrentVisit, queue: Annotated[str, Query(max_length=100)] = MAIL_QUEUES[0]) -> Response:
    """List the uncertain jobs of a queue of mail, the oldest first."""
    if queue not in MAIL_QUEUES:
        raise UsageError(f"{queue!r} is not a queue of mail", remedy=f"They are {' and '.join(MAIL_QUEUES)}.")
    jobs = await (await visit.parts.queue(queue)).uncertain(MAX_JOBS + 1)
    return visit.page(
        "undecided_uncertain.html",
        queue=queue,
        rows=await visit.read(_uncertain_rows, jobs[:MAX_JOBS]),
        more=len(jobs) > MAX_JOBS,
        tones=TOUCH_TONES,
        decisions_of=lambda touch: message_decisions(touch, TouchState.UNKNOWN, visit.here),
        url_of=campaign_url,
    )


def _uncertain_rows(connection: sa.Connection, jobs: Sequence[UncertainJob]) -> list[UncertainRow]:
    ids = {job.id: touch_of(job.id) for job in jobs}
    touches = {touch.id: touch for touch in touches_by_ids(connection, list(ids.values()))} if ids else {}
    return [
        UncertainRow(job=job, touch=touches.get(ids[job.id]), since=datetime.fromtimestamp(job.since_ms / 1000, UTC))
        for job in jobs
    ]


async def _confirmation(
    visit: Visit, state: TouchState, decision: Decision, cause: str, *, note: str = "", error: str = ""
) -> Confirmation:
    number = await _number(visit, state, cause)
    now, text = min(number, MAX_OF_ACT), TEXTS[state, decision]
    effects = [*text.effects, f"Their cause: {cause or 'not recorded'}."]
    if number > now:
        effects.append(f"These are {now:,} of {number:,}. Repeat it for the others.")
    hidden = {
        "state": state,
        "cause": cause,
        "decision": decision,
        "until": f"{visit.parts.now():%Y-%m-%dT%H:%M:%S.%f}",
    }
    return Confirmation(
        title=text.question.format(what=messages(now)),
        button=text.button,
        action="/undecided/decide",
        back=rows_url(state, cause),
        extents=[Extent(count=now, label=text.extent, href=rows_url(state, cause))],
        effects=effects,
        fields=[reason_field(note, error, REASON_HINT)],
        hidden=hidden,
        dangerous=text.dangerous,
    )


def _require_decision(state: TouchState, decision: Decision) -> None:
    _require_undecided(state)
    if decision not in decisions_for(state):
        raise UsageError(f"{state} messages cannot be decided as {decision}", remedy="Open the page Undecided.")


@screen.get("/undecided/decide", role=AccessRole.OPERATE)
async def ask(visit: CurrentVisit, state: TouchState, decision: Decision, cause: CauseText = "") -> Response:
    """Show about how many messages of a cause a decision would be."""
    _require_decision(state, decision)
    return visit.confirm(await _confirmation(visit, state, decision, cause))


@screen.post("/undecided/decide", role=AccessRole.OPERATE)
async def decide_cause(visit: CurrentVisit) -> Response:
    """Decide about the messages of a cause that were there when the page before was shown."""
    form = await visit.form()
    note = form.text("note", max_characters=MAX_REASON, required=False)
    state, until = form.raw("state"), form.time("until", UTC)
    if until is None or state not in UNDECIDED:
        raise UsageError("the form is not complete", remedy="Open the page Undecided, and repeat the act.")
    cause, chosen = form.raw("cause"), (TouchState(state), posted_decision(form))
    _require_decision(*chosen)
    if form.errors:
        page = await _confirmation(visit, *chosen, cause, note=note, error=form.errors["note"])
        return visit.confirm(page, status=422)
    listed = await visit.read(undecided_touches, state=chosen[0], cause=cause, limit=MAX_OF_ACT)
    touches = [touch for touch in listed.rows if touch.settled_at is None or touch.settled_at <= until]
    target = f"{state}: {cause or 'cause not recorded'}"
    number = await decide_about(visit, touches, *chosen, target=target, note=note)
    return visit.redirect("/undecided", TEXTS[chosen].done.format(what=messages(number)))


def posted_decision(form: ConsoleForm) -> Decision:
    """Return the decision of a form.

    Raises:
        UsageError: It has none.
    """
    try:
        return Decision(form.raw("decision"))
    except ValueError:
        raise UsageError("the form has no decision", remedy="Open the page Undecided, and repeat the act.") from None


async def decide_about(
    visit: Visit, touches: Sequence[FoundTouch], state: TouchState, decision: Decision, *, target: str, note: str
) -> int:
    """Decide about messages in one state, with one record in the audit log.

    Args:
        visit: The request.
        touches: The messages.
        state: Their state.
        decision: The decision.
        target: What the record says that it was done to.
        note: The reason that the user gave.

    Returns:
        How many were decided. Those that left the state meanwhile are skipped.
    """
    by_queue: defaultdict[str, list[str]] = defaultdict(list)
    for touch in touches:
        by_queue[queue_of_touch(touch)].append(job_id(touch.id))
    queues = {name: await visit.parts.queue(name) for name in by_queue}  # A page starts no server.
    by = f"{visit.user.user} in the console" + (f": {note}" if note else "")
    async with visit.act(f"message.{decision}", target, count=0, note=note) as act:
        for name, ids in by_queue.items():
            act.count = (act.count or 0) + await decide(visit.parts.context, queues[name], ids, state, decision, by=by)
    return act.count or 0
