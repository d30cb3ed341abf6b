"""What one does to an endpoint: send events again, replay, disable, enable, send a test event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import Query, Response

from postroad.app.webhook_dead import MAX_RESENT, resend_dead
from postroad.app.webhooks import named_endpoint, redeliver, replay_events, replay_extent, send_test, set_enabled
from postroad.console.authorise import CurrentVisit
from postroad.console.confirm import CHANGED, Confirmation, Extent, reason_field
from postroad.console.screens.webhooks import find_report, screen, webhook_url
from postroad.console.visit import Visit
from postroad.errors import UsageError
from postroad.events_out.client import WebhookAnswer, WebhookOutcome
from postroad.printable import counted
from postroad.settings import AccessRole
from postroad.settings.queues import WEBHOOK_QUEUE

MAX_REASON: Final = 150
"""Characters: with the user's name it fits into the reason that the ledger keeps."""
MAX_EVENT: Final = 100
SAME_IDS: Final = "Their ids stay the same, so a receiver that stores ids ignores those that it has."

EventId = Annotated[str, Query(max_length=MAX_EVENT)]
Since = Annotated[str, Query(max_length=40)]


@screen.get("/webhooks/{endpoint}/redeliver", role=AccessRole.OPERATE)
async def ask_redeliver(visit: CurrentVisit, endpoint: str, event: EventId) -> Response:
    """Show what sending one event again touches."""
    named_endpoint(visit.parts.context, endpoint)
    return visit.confirm(
        Confirmation(
            title=f"Send the event {event} to {endpoint} again?",
            button="Send it again",
            action=webhook_url(endpoint, "redeliver"),
            back=webhook_url(endpoint, "attempts", event=event),
            extents=[Extent(count=1, label="event is sent again", href=webhook_url(endpoint, "attempts", event=event))],
            effects=["Its id stays the same, so a receiver that stores ids ignores it if it has it."],
            hidden={"event": event},
        )
    )


@screen.post("/webhooks/{endpoint}/redeliver", role=AccessRole.OPERATE)
async def do_redeliver(visit: CurrentVisit, endpoint: str) -> Response:
    """Send one event again."""
    form = await visit.form()
    event = form.text("event", max_characters=MAX_EVENT)
    if form.errors:
        raise UsageError("the form names no event", remedy="Open the log of the endpoint, and repeat the act.")
    await visit.parts.queue(WEBHOOK_QUEUE)  # A page starts no server.
    async with visit.act("webhook.redeliver", f"{endpoint}: {event}", count=1):
        await redeliver(visit.parts.context, endpoint, [event])
    return visit.redirect(webhook_url(endpoint, "attempts", event=event), "The event is sent again.")


async def _resending(visit: Visit, endpoint: str) -> Confirmation:
    named_endpoint(visit.parts.context, endpoint)
    dead = (await find_report(visit, endpoint)).dead
    now = min(dead, MAX_RESENT)
    effects = [f"Each gets all its attempts again. {SAME_IDS}", "An event that was dropped from the queue is skipped."]
    if dead > now:
        effects.append(f"These are the {now:,} oldest ones. Repeat it for the others.")
    return Confirmation(
        title=f"Send the dead events of {endpoint} again?",
        button="Send them again",
        action=webhook_url(endpoint, "resend"),
        back=webhook_url(endpoint, "dead"),
        extents=[Extent(count=now, label="events are sent again", href=webhook_url(endpoint, "dead"))],
        effects=effects,
        hidden={"shown": str(now)},
    )


@screen.get("/webhooks/{endpoint}/resend", role=AccessRole.OPERATE)
async def ask_resend(visit: CurrentVisit, endpoint: str) -> Response:
    """Show how many dead events would be sent again."""
    return visit.confirm(await _resending(visit, endpoint))


@screen.post("/webhooks/{endpoint}/resend", role=AccessRole.OPERATE)
async def do_resend(visit: CurrentVisit, endpoint: str) -> Response:
    """Send the dead events again that the page showed."""
    shown = (await visit.form()).raw("shown")
    asked = await _resending(visit, endpoint)
    if shown != asked.hidden["shown"]:
        return visit.confirm(asked, errors=[CHANGED], status=409)
    await visit.parts.queue(WEBHOOK_QUEUE)
    async with visit.act("webhook.resend", endpoint) as act:
        act.count = await resend_dead(visit.parts.context, endpoint)
    return visit.redirect(webhook_url(endpoint), f"{counted(act.count or 0, 'event is', 'events are')} sent again.")


def _time(visit: Visit, text: str) -> datetime:
    """Return the time of a text, by default in the zone of the settings. Raises UsageError for any other text."""
    try:
        at = datetime.fromisoformat(text.strip())
        return (at if at.tzinfo is not None else at.replace(tzinfo=visit.parts.zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{text[:40]!r} is not a time", remedy="Choose a date and a time.") from None


@screen.get("/webhooks/{endpoint}/replay", role=AccessRole.OPERATE)
async def ask_replay(visit: CurrentVisit, endpoint: str, since: Since) -> Response:
    """Show what a replay since a time touches."""
    at = _time(visit, since)
    extent = await replay_extent(visit.parts.context, endpoint, at)
    return visit.confirm(
        Confirmation(
            title=f"Send all events since {at.astimezone(visit.parts.zone):%Y-%m-%d %H:%M} to {endpoint} again?",
            button="Send them again",
            action=webhook_url(endpoint, "replay"),
            back=webhook_url(endpoint),
            extents=[Extent(count=extent.until - extent.after, label="recorded events are read again, at most")],
            effects=[
                f"The endpoint gets those of its types, in their order, and newer ones after them. {SAME_IDS}",
                "Some events are a little older: events are replayed in the order in which they were recorded.",
            ],
            hidden={"since": at.isoformat()},
        )
    )


@screen.post("/webhooks/{endpoint}/replay", role=AccessRole.OPERATE)
async def do_replay(visit: CurrentVisit, endpoint: str) -> Response:
    """Move the endpoint back to a time."""
    at = _time(visit, (await visit.form()).raw("since"))
    extent = await replay_extent(visit.parts.context, endpoint, at)
    note = f"since {at:%Y-%m-%d %H:%M:%S} UTC"
    async with visit.act("webhook.replay", endpoint, count=extent.until - extent.after, note=note) as act:
        begun = await replay_events(visit.parts.context, endpoint, at)
        act.count = begun.until - begun.after
    what = counted(begun.until - begun.after, "recorded event is", "recorded events are")
    return visit.redirect(webhook_url(endpoint), f"{what} read again.")


async def _disabling(visit: Visit, endpoint: str, note: str = "", error: str = "") -> Confirmation:
    named_endpoint(visit.parts.context, endpoint)
    waiting = (await find_report(visit, endpoint)).waiting
    return Confirmation(
        title=f"Disable the endpoint {endpoint}?",
        button="Disable it",
        action=webhook_url(endpoint, "disable"),
        back=webhook_url(endpoint),
        extents=[Extent(count=waiting, label="events wait in the queue for it now")],
        effects=["It gets no event until it is enabled. Events that occur in between are delivered then."],
        fields=[reason_field(note, error, "The page of the endpoint shows it, and the audit log keeps it.")],
    )


@screen.get("/webhooks/{endpoint}/disable", role=AccessRole.OPERATE)
async def ask_disable(visit: CurrentVisit, endpoint: str) -> Response:
    """Show what disabling an endpoint touches."""
    return visit.confirm(await _disabling(visit, endpoint))


@screen.post("/webhooks/{endpoint}/disable", role=AccessRole.OPERATE)
async def disable(visit: CurrentVisit, endpoint: str) -> Response:
    """Disable an endpoint."""
    form = await visit.form()
    note = form.text("note", max_characters=MAX_REASON, required=False)
    if form.errors:
        return visit.confirm(await _disabling(visit, endpoint, note, form.errors["note"]), status=422)
    await visit.parts.queue(WEBHOOK_QUEUE)
    by = f"by {visit.user.user[:30]} in the console" + (f": {note}" if note else "")
    async with visit.act("webhook.disable", endpoint, count=1, note=note):
        changed = await set_enabled(visit.parts.context, endpoint, enabled=False, why=by)
    return visit.redirect(webhook_url(endpoint), f"{endpoint} is disabled." if changed else f"{endpoint} was disabled.")


@screen.get("/webhooks/{endpoint}/enable", role=AccessRole.OPERATE)
async def ask_enable(visit: CurrentVisit, endpoint: str) -> Response:
    """Show what enabling an endpoint touches."""
    named_endpoint(visit.parts.context, endpoint)
    report = await find_report(visit, endpoint)
    return visit.confirm(
        Confirmation(
            title=f"Enable the endpoint {endpoint}?",
            button="Enable it",
            action=webhook_url(endpoint, "enable"),
            back=webhook_url(endpoint),
            extents=[Extent(count=report.waiting, label="events wait in the queue for it now")],
            effects=["It gets its backlog from where it stopped, and then newer events."],
        )
    )


@screen.post("/webhooks/{endpoint}/enable", role=AccessRole.OPERATE)
async def enable(visit: CurrentVisit, endpoint: str) -> Response:
    """Enable an endpoint."""
    await visit.parts.queue(WEBHOOK_QUEUE)
    async with visit.act("webhook.enable", endpoint, count=1):
        changed = await set_enabled(visit.parts.context, endpoint, enabled=True)
    return visit.redirect(webhook_url(endpoint), f"{endpoint} is enabled." if changed else f"{endpoint} was enabled.")


@screen.get("/webhooks/{endpoint}/test", role=AccessRole.OPERATE)
async def ask_test(visit: CurrentVisit, endpoint: str) -> Response:
    """Ask before a test event is sent."""
    named_endpoint(visit.parts.context, endpoint)
    return visit.confirm(
        Confirmation(
            title=f"Send a test event to {endpoint}?",
            button="Send it",
            action=webhook_url(endpoint, "test"),
            back=webhook_url(endpoint),
            extents=[Extent(count=1, label="event of the type postroad.test is sent at once")],
            effects=["It is about no recipient. It is sent to a disabled endpoint, too."],
        )
    )


@screen.post("/webhooks/{endpoint}/test", role=AccessRole.OPERATE)
async def do_test(visit: CurrentVisit, endpoint: str) -> Response:
    """Send a test event, and show the response."""
    named_endpoint(visit.parts.context, endpoint)
    async with visit.act("webhook.test", endpoint, count=1, first=True):
        _, answer = await send_test(visit.parts.context, endpoint)
    return visit.redirect(webhook_url(endpoint), describe_answer(endpoint, answer))


def describe_answer(endpoint: str, answer: WebhookAnswer) -> str:
    """Return the result of a request as a sentence."""
    status = f" with status {answer.status}" if answer.status is not None else ""
    took = f"after {answer.duration_ms:,} ms"
    if answer.outcome is WebhookOutcome.DELIVERED:
        return f"{endpoint} accepted the test event{status} {took}."
    return f"{endpoint} did not accept the test event: {answer.outcome}{status} {took}."
