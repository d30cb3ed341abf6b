"""What one does to a campaign: pause, resume, close its entry, recall. Each says first how many messages it touches."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from postroad.app import campaign_acts
from postroad.console.authorise import CurrentVisit
from postroad.console.campaign_view import campaign_url
from postroad.console.confirm import Confirmation, Extent, FormField, reason_field
from postroad.console.screens.campaigns import screen
from postroad.console.visit import Visit
from postroad.read_model.campaigns import campaign_parts
from postroad.settings import AccessRole
from postroad.store.campaign import StepKind, find_campaign, steps_of
from postroad.store.engine import read
from postroad.store.ledger import LIVE, TouchState

MAX_REASON = 300
CHANGED_LATER = "Messages on the wire at this moment finish."


async def _counts(visit: Visit, name: str, step: str | None = None) -> dict[TouchState, int]:
    """Return the messages of a campaign or of one step, by state."""
    found = await visit.read(campaign_parts, name)
    if step is None:
        return found.summary.counts
    return next((one.counts for one in found.summary.steps if one.name == step), dict.fromkeys(TouchState, 0))


def _waiting(name: str, counts: dict[TouchState, int], label: str, step: str | None = None) -> list[Extent]:
    """Return the messages that wait, and those of each state, which lead to their rows."""
    states = [state for state in LIVE if counts[state]]
    links = [campaign_url(name, "messages", state=state, step=step) for state in states]
    if len(states) == 1:
        return [Extent(count=counts[states[0]], label=label, href=links[0])]
    each = [
        Extent(count=counts[state], label=f"of them {state}", href=href)
        for state, href in zip(states, links, strict=True)
    ]
    return [Extent(count=sum(counts[state] for state in states), label=label), *each]


async def _pause(visit: Visit, name: str, note: FormField) -> Confirmation:
    return Confirmation(
        title=f"Pause the campaign {name}?",
        button="Pause it",
        action=campaign_url(name, "pause"),
        back=campaign_url(name),
        extents=_waiting(name, await _counts(visit, name), "messages that wait, and stay where they are"),
        effects=["No more messages of it leave until a person resumes it.", CHANGED_LATER],
        fields=[note],
    )


@screen.get("/campaigns/{campaign}/pause", role=AccessRole.SEND)
async def ask_pause(visit: CurrentVisit, campaign: str) -> Response:
    """Show what a pause touches."""
    return visit.confirm(await _pause(visit, campaign, reason_field()))


@screen.post("/campaigns/{campaign}/pause", role=AccessRole.SEND)
async def pause(visit: CurrentVisit, campaign: str) -> Response:
    """Pause a campaign."""
    form = await visit.form()
    note = form.text("note", max_characters=MAX_REASON, required=False)
    if form.errors:
        return visit.confirm(await _pause(visit, campaign, reason_field(note, form.errors["note"])), status=422)
    counts = await _counts(visit, campaign)
    await visit.parts.queue()  # A page starts no server.
    waiting = sum(counts[state] for state in LIVE)
    async with visit.act("campaign.pause", campaign, count=waiting, note=note):
        by = f"{visit.user.user} in the console" + (f": {note}" if note else "")
        await campaign_acts.pause(visit.parts.context, campaign, by=by)
    return visit.redirect(campaign_url(campaign), f"Campaign {campaign} is paused.")


@screen.get("/campaigns/{campaign}/resume", role=AccessRole.SEND)
async def ask_resume(visit: CurrentVisit, campaign: str) -> Response:
    """Show what resuming touches."""
    counts = await _counts(visit, campaign)
    return visit.confirm(
        Confirmation(
            title=f"Resume the campaign {campaign}?",
            button="Resume it",
            action=campaign_url(campaign, "resume"),
            back=campaign_url(campaign),
            extents=_waiting(campaign, counts, "messages that wait, and will leave as their limits allow"),
            effects=["No message is sent twice. Messages that became due while it was paused leave first."],
        )
    )


@screen.post("/campaigns/{campaign}/resume", role=AccessRole.SEND)
async def resume(visit: CurrentVisit, campaign: str) -> Response:
    """Resume a campaign."""
    counts = await _counts(visit, campaign)
    await visit.parts.queue()  # A page starts no server.
    async with visit.act("campaign.resume", campaign, count=sum(counts[state] for state in LIVE)):
        await campaign_acts.resume(visit.parts.context, campaign, by=f"{visit.user.user} in the console")
    return visit.redirect(campaign_url(campaign), f"Campaign {campaign} is resumed.")


@screen.get("/campaigns/{campaign}/close", role=AccessRole.SEND)
async def ask_close(visit: CurrentVisit, campaign: str) -> Response:
    """Show what closing the entry touches."""
    found = await visit.read(campaign_parts, campaign)
    journey = found.summary.journey
    inside = Extent(count=journey.active if journey else 0, label="recipients in it, who go through to its end")
    return visit.confirm(
        Confirmation(
            title=f"Close the entry of {campaign}?",
            button="Close the entry",
            action=campaign_url(campaign, "close"),
            back=campaign_url(campaign),
            extents=[inside],
            effects=["No more recipients enter it. It finishes after the last one. It cannot be opened again."],
            dangerous=True,
        )
    )


@screen.post("/campaigns/{campaign}/close", role=AccessRole.SEND)
async def close(visit: CurrentVisit, campaign: str) -> Response:
    """Close the entry of a campaign."""
    async with visit.act("campaign.close", campaign):
        await campaign_acts.close(visit.parts.context, campaign)
    return visit.redirect(campaign_url(campaign), f"No more recipients enter {campaign}.")


def _email_steps(visit: Visit, name: str) -> list[str]:
    with read(visit.parts.engine) as connection:
        rows = steps_of(connection, find_campaign(connection, name).id or 0)
    return [step.name for step in rows if step.kind is StepKind.EMAIL]


async def _recall(visit: Visit, name: str, step: str | None, note: FormField) -> Confirmation:
    counts = await _counts(visit, name, step)
    waiting = _waiting(name, counts, "messages that will not be sent", step)
    gone = [
        Extent(count=counts[state], label=label, href=campaign_url(name, "messages", state=state, step=step))
        for state, label in (
            (TouchState.ACCEPTED, "messages that receivers have"),
            (TouchState.UNKNOWN, "messages that may have arrived"),
            (TouchState.SENDING, "messages on the wire now"),
        )
    ]
    what = f"step {step} of {name}" if step else f"the campaign {name}"
    ends = "This step is not sent to anyone, and the sequence of its recipients ends." if step else "The campaign ends."
    return Confirmation(
        title=f"Recall {what} for good?",
        button="Recall it",
        action=campaign_url(name, "recall", step=step),
        back=campaign_url(name),
        extents=[*waiting, *gone],
        effects=[
            f"{ends} This cannot be undone.",
            f"A new campaign with `corrects: {name}` in its file sends a correction to exactly those whom it reached.",
        ],
        fields=[note],
        dangerous=True,
    )


StepName = Annotated[str | None, Query(max_length=200)]


@screen.get("/campaigns/{campaign}/recall", role=AccessRole.OPERATE)
async def ask_recall(visit: CurrentVisit, campaign: str, step: StepName = None) -> Response:
    """Show what a recall touches."""
    steps = await visit.run(_email_steps, visit, campaign)
    confirmation = await _recall(visit, campaign, step, reason_field())
    return visit.page("campaign_recall.html", confirmation=confirmation, errors=(), steps=steps, step=step)


@screen.post("/campaigns/{campaign}/recall", role=AccessRole.OPERATE)
async def do_recall(visit: CurrentVisit, campaign: str, step: StepName = None) -> Response:
    """Recall a campaign or one step."""
    form = await visit.form()
    note = form.text("note", max_characters=MAX_REASON, required=False)
    if form.errors:
        field = reason_field(note, form.errors["note"])
        return visit.confirm(await _recall(visit, campaign, step, field), status=422)
    counts = await _counts(visit, campaign, step)
    await visit.parts.queue()  # A page starts no server.
    target = f"{campaign}, step {step}" if step else campaign
    waiting = sum(counts[state] for state in LIVE)
    async with visit.act("campaign.recall", target, count=waiting, note=note):
        result = await campaign_acts.recall_campaign(visit.parts.context, campaign, step)
    stopped = result.counts[TouchState.CANCELLED]
    return visit.redirect(campaign_url(campaign), f"Recalled: {stopped:,} messages are cancelled.")
