"""Receivers: who is slow or refuses, since which reply, and how a change that slows a sender down is undone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

import sqlalchemy as sa
from fastapi import Query, Response

from postroad.app.gate_acts import resume_gate
from postroad.console.authorise import CurrentVisit
from postroad.console.confirm import CHANGED, Confirmation, Extent, reason_field
from postroad.console.receiver_view import (
    OUTCOME_TONES,
    is_paused,
    limits_at,
    outcome_bar,
    pace_of,
    queue_gates,
    receivers_url,
)
from postroad.console.screen import NavSection, Screen
from postroad.console.visit import Visit
from postroad.errors import StateError
from postroad.read_model.page import Page
from postroad.read_model.receivers import (
    OutcomesOf,
    Receivers,
    ReceiverTraffic,
    ReplyGroups,
    TrafficWindow,
    group_events,
    receiver_events,
    receivers,
    reply_groups,
    window_start,
)
from postroad.read_model.shaping import ShapingEntry, open_entries, past_entries
from postroad.settings import AccessRole
from postroad.store.event_page import OutcomeRow
from postroad.store.outcome import DeliveryOutcome

screen = Screen(name="receivers", title="Receivers", path="/receivers", section=NavSection.DELIVERY)

GROUPED_OUTCOMES: Final = frozenset(
    {DeliveryOutcome.DEFERRED, DeliveryOutcome.BOUNCED, DeliveryOutcome.DEAD, DeliveryOutcome.UNKNOWN}
)
"""Outcomes whose replies are grouped: those of accepted messages are not read, and complaints have none."""
MAX_REASON: Final = 300
MAX_GATE: Final = 1_000

SenderText = Annotated[str, Query(max_length=320)]
OptionalText = Annotated[str | None, Query(max_length=8_000)]


@screen.get("/receivers", role=AccessRole.VIEW)
async def overview(
    visit: CurrentVisit, window: TrafficWindow = TrafficWindow.DAY, sender: OptionalText = None
) -> Response:
    """Show the outcomes by sender and mailbox provider, their limits, and what slows a sender down."""
    found, changes = await visit.read(_read_overview, visit.parts.now(), window, sender)
    gates = await queue_gates(visit)
    now_ms = visit.parts.context.clock.now_ms()
    return visit.page(
        "receivers.html",
        found=found,
        changes=changes,
        paces=[pace_of(gates, row.address, row.provider, now_ms) for row in found.rows],
        queue_problem=gates.problem,
        window=window,
        windows=list(TrafficWindow),
        sender=sender,
        outcomes=list(OUTCOME_TONES),
        bar_of=outcome_bar,
        url_of=receivers_url,
    )


def _read_overview(
    connection: sa.Connection, now: datetime, window: TrafficWindow, sender: str | None
) -> tuple[Receivers, list[ShapingEntry]]:
    found = receivers(connection, now, window, sender=sender)
    changes = open_entries(connection, now)
    return found, [change for change in changes if sender is None or sender in change.names]


@dataclass(frozen=True, kw_only=True)
class OutcomeList:
    """What the page of one number shows. ``row``: all outcomes of this sender there; None: it had no mail there."""

    row: ReceiverTraffic | None
    replies: ReplyGroups | None
    page: Page[OutcomeRow]
    changes: list[ShapingEntry]


@screen.get("/receivers/messages", role=AccessRole.VIEW)
async def messages(
    visit: CurrentVisit,
    sender: SenderText,
    provider: SenderText,
    outcome: DeliveryOutcome = DeliveryOutcome.DEFERRED,
    window: TrafficWindow = TrafficWindow.DAY,
    reply: OptionalText = None,
    after: OptionalText = None,
) -> Response:
    """Show the messages of one number, with the replies and the limits that explain it."""
    now = visit.parts.now()
    of = OutcomesOf(sender=sender, provider=provider, outcome=outcome, since=window_start(window, now))
    found = await visit.read(_read_outcomes, of, window, now, reply, after)
    address = found.row.address if found.row is not None else ""
    gates = await queue_gates(visit)
    return visit.page(
        "receivers_messages.html",
        found=found,
        of=of,
        pace=pace_of(gates, address, provider, visit.parts.context.clock.now_ms()),
        limits=await limits_at(visit, address, provider, gates) if address and reply is None and after is None else (),
        queue_problem=gates.problem,
        window=window,
        windows=list(TrafficWindow),
        reply=reply,
        first=after is None,
        outcomes=list(OUTCOME_TONES),
        tones=OUTCOME_TONES,
        url_of=receivers_url,
    )


def _read_outcomes(
    connection: sa.Connection,
    of: OutcomesOf,
    window: TrafficWindow,
    now: datetime,
    reply: str | None,
    after: str | None,
) -> OutcomeList:
    rows = receivers(connection, now, window, sender=of.sender).rows
    row = next((each for each in rows if each.provider == of.provider), None)
    starts = reply is None and after is None
    grouped = starts and of.outcome in GROUPED_OUTCOMES
    page = (
        receiver_events(connection, of, now, after=after)
        if reply is None
        else group_events(connection, of, reply, now, after=after)
    )
    changes = open_entries(connection, now, provider=of.provider) if starts else []
    return OutcomeList(
        row=row,
        replies=reply_groups(connection, of, now) if grouped else None,
        page=page,
        changes=[change for change in changes if of.sender in change.names],
    )


@screen.get("/receivers/changes", role=AccessRole.VIEW)
async def changes(
    visit: CurrentVisit, sender: OptionalText = None, gate: OptionalText = None, after: OptionalText = None
) -> Response:
    """List the open changes of a gate, or all changes of the shaping, also those that are over."""
    now = visit.parts.now()
    if gate:
        page = Page(rows=[entry for entry in await visit.read(open_entries, now) if entry.gate == gate])
    else:
        page = await visit.read(past_entries, now, sender=sender or None, after=after)
    return visit.page(
        "receivers_changes.html",
        page=page,
        sender=sender or None,
        gate=gate or None,
        first=after is None,
        url_of=receivers_url,
    )


def _of_gate(connection: sa.Connection, gate: str, now: datetime) -> list[ShapingEntry]:
    found = [entry for entry in open_entries(connection, now) if entry.gate == gate]
    if not found:
        raise StateError(
            f"no change of the shaping slows {gate[:200]} down", remedy="It has ended, or was undone meanwhile."
        )
    return found


async def _undoing(visit: Visit, gate: str, note: str = "", error: str = "") -> Confirmation:
    found = await visit.read(_of_gate, gate, visit.parts.now())
    gates = await queue_gates(visit)
    state, paused = gates.states.get(gate), False
    href = receivers_url("changes", gate=gate)
    extents = [Extent(count=len(found), label="open changes are undone", href=href)]
    effects = [f"{entry.rule} set: {entry.sets}, because of: {entry.reply}" for entry in found]
    effects.append("The limits of shaping.toml apply again at once, on all workers.")
    if gates.problem is not None:
        effects.append(f"How many lanes wait for it is not known: {gates.problem.message}.")
    elif state is not None:
        extents.append(Extent(count=state.parked_lanes, label="lanes of the queue wait for it now"))
        suspended = any(entry.suspended for entry in found)
        paused = is_paused(state.gate, visit.parts.context.clock.now_ms()) and not suspended
        if paused:
            effects.append("The gate is also paused by an operator. That pause ends, too.")
    effects.append("If the receiver still refuses, its next replies slow the sender down again.")
    return Confirmation(
        title=f"Undo the changes of {gate}?",
        button="Undo them",
        action=receivers_url("undo"),
        back=receivers_url(),
        extents=extents,
        effects=effects,
        fields=[reason_field(note, error)],
        hidden={"gate": gate, "shown": " ".join([*(str(entry.id) for entry in found), *["paused"] * paused])},
    )


@screen.get("/receivers/undo", role=AccessRole.OPERATE)
async def ask_undo(visit: CurrentVisit, gate: Annotated[str, Query(max_length=MAX_GATE)]) -> Response:
    """Show what undoing the changes of a gate touches."""
    return visit.confirm(await _undoing(visit, gate))


@screen.post("/receivers/undo", role=AccessRole.OPERATE)
async def undo(visit: CurrentVisit) -> Response:
    """Undo the open changes of a gate."""
    form = await visit.form()
    gate = form.text("gate", max_characters=MAX_GATE)
    note = form.text("note", max_characters=MAX_REASON, required=False)
    found = await visit.read(_of_gate, gate, visit.parts.now())
    asked = await _undoing(visit, gate, note, form.errors.get("note", ""))
    if form.errors:
        return visit.confirm(asked, status=422)
    if form.raw("shown") != asked.hidden["shown"]:
        return visit.confirm(asked, errors=[CHANGED], status=409)
    queue = await visit.parts.queue()
    by = f"{visit.user.user} in the console"
    async with visit.act("gate.resume", gate, count=len(found), note=note):
        await resume_gate(visit.parts.context, queue, gate, by=by)
    return visit.redirect(receivers_url(), f"The changes of {gate} are undone.")
