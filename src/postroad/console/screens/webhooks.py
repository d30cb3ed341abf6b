"""Webhooks: the endpoints that get events, how far each is, its last requests, and the events that it never got."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from fastapi import Query, Response

from postroad.app.webhooks import list_endpoints
from postroad.console.authorise import CurrentVisit
from postroad.console.page_url import page_url
from postroad.console.screen import NavSection, Screen
from postroad.console.visit import Visit
from postroad.errors import unknown_name
from postroad.events_out.client import WebhookOutcome
from postroad.events_out.status import MAX_COUNTED, EndpointReport, EndpointStatus
from postroad.read_model.webhooks import dead_events, webhook_attempts
from postroad.settings import AccessRole

screen = Screen(name="webhooks", title="Webhooks", path="/webhooks", section=NavSection.DELIVERY)

LAST_ATTEMPTS: Final = 10
TONES: Final[Mapping[EndpointStatus, str]] = {
    EndpointStatus.ENABLED: "good",
    EndpointStatus.DISABLED: "warn",
    EndpointStatus.NEW: "wait",
    EndpointStatus.REMOVED: "end",
}

_OUTCOME_TONES: Final[Mapping[str, str]] = {WebhookOutcome.DELIVERED: "good", WebhookOutcome.THROTTLED: "warn"}

EventId = Annotated[str | None, Query(max_length=100)]
Cursor = Annotated[str | None, Query(max_length=200)]


def webhook_url(endpoint: str, *path: str, **query: object) -> str:
    """Return the URL of an endpoint's page, or of a page below it."""
    return page_url("webhooks", endpoint, *path, **query)


def outcome_tone(outcome: str) -> str:
    """Return the tone of the outcome of a request."""
    return _OUTCOME_TONES.get(outcome, "bad")


async def find_report(visit: Visit, endpoint: str) -> EndpointReport:
    """Return the state of an endpoint. Raises StateError if neither the settings nor the ledger have it."""
    reports = {report.name: report for report in await list_endpoints(visit.parts.context)}
    if endpoint not in reports:
        raise unknown_name("webhook endpoint", endpoint, reports, listed_by="postroad webhook list")
    return reports[endpoint]


@screen.get("/webhooks", role=AccessRole.VIEW)
async def webhooks(visit: CurrentVisit) -> Response:
    """List the endpoints of the settings, and those that the settings do not name any more."""
    return visit.page(
        "webhooks.html",
        reports=await list_endpoints(visit.parts.context),
        tones=TONES,
        tone_of=outcome_tone,
        most=MAX_COUNTED,
        url_of=webhook_url,
    )


@screen.get("/webhooks/{endpoint}", role=AccessRole.VIEW)
async def endpoint_page(visit: CurrentVisit, endpoint: str) -> Response:
    """Show an endpoint and its last requests."""
    report = await find_report(visit, endpoint)
    return visit.page(
        "webhook_endpoint.html",
        report=report,
        is_set=report.status in (EndpointStatus.ENABLED, EndpointStatus.DISABLED),
        is_named=report.status is not EndpointStatus.REMOVED,
        attempts=await visit.read(webhook_attempts, endpoint, limit=LAST_ATTEMPTS),
        tones=TONES,
        tone_of=outcome_tone,
        most=MAX_COUNTED,
        url_of=webhook_url,
    )


@screen.get("/webhooks/{endpoint}/attempts", role=AccessRole.VIEW)
async def attempts_of(visit: CurrentVisit, endpoint: str, event: EventId = None, after: Cursor = None) -> Response:
    """List the requests to an endpoint, or those with one event."""
    report = await find_report(visit, endpoint)
    return visit.page(
        "webhook_attempts.html",
        report=report,
        is_set=report.status in (EndpointStatus.ENABLED, EndpointStatus.DISABLED),
        attempts=await visit.read(webhook_attempts, endpoint, event=event, after=after),
        event=event,
        first=after is None,
        tone_of=outcome_tone,
        url_of=webhook_url,
    )


@screen.get("/webhooks/{endpoint}/dead", role=AccessRole.VIEW)
async def dead_of(visit: CurrentVisit, endpoint: str, after: Cursor = None) -> Response:
    """List the events of which every attempt failed."""
    report = await find_report(visit, endpoint)
    return visit.page(
        "webhook_dead.html",
        report=report,
        is_set=report.status in (EndpointStatus.ENABLED, EndpointStatus.DISABLED),
        page=await visit.read(dead_events, endpoint, after=after),
        first=after is None,
        tone_of=outcome_tone,
        most=MAX_COUNTED,
        url_of=webhook_url,
    )
