"""Domains: whether receivers see us as we think. DNS findings with their remedies, DMARC sources, TLS reports."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

import sqlalchemy as sa
from fastapi import Query, Response

from postroad.console.authorise import CurrentVisit
from postroad.console.page_url import page_url
from postroad.console.screen import NavSection, Screen
from postroad.console.visit import Visit
from postroad.dns.finding import RecordVerdict
from postroad.dns.identity import is_reserved
from postroad.dns.show import to_fix
from postroad.errors import unknown_name
from postroad.read_model.canaries import CanaryState, canaries_of, last_canaries
from postroad.read_model.domains import DomainState, domain_history, domain_states
from postroad.read_model.mail_reports import ReportWindow, dmarc_rows, dmarc_sources, tls_results, tls_rows
from postroad.read_model.page import Page
from postroad.settings import AccessRole, Settings
from postroad.store.mail_report_page import DmarcSource, TlsResult

screen = Screen(name="domains", title="Domains", path="/domains", section=NavSection.DELIVERY)

FIRST_ROWS: Final = 10
"""Sources and results on the first page, which has links to the rest."""
VERDICT_TONES: Final[Mapping[RecordVerdict, str]] = {
    RecordVerdict.PASS: "good",
    RecordVerdict.INFO: "info",
    RecordVerdict.UNKNOWN: "wait",
    RecordVerdict.WARN: "warn",
    RecordVerdict.FAIL: "bad",
}

NameText = Annotated[str, Query(max_length=320)]
OptionalName = Annotated[str | None, Query(max_length=320)]
Cursor = Annotated[str | None, Query(max_length=2_000)]


def domains_url(*path: str, **query: object) -> str:
    """Return the URL of the domains, or of a page below it, with query parameters that are not None."""
    return page_url("domains", *path, **query)


def _report_page(
    visit: Visit, template: str, window: ReportWindow, page: Page[Any], after: str | None, **values: Any
) -> Response:
    """Return a page of reports. ``after``: its cursor."""
    return visit.page(
        template,
        page=page,
        window=window,
        windows=list(ReportWindow),
        first=after is None,
        url_of=domains_url,
        **values,
    )


def _addresses(settings: Settings) -> list[str]:
    return list(dict.fromkeys(sender.address for sender in settings.senders.values()))


@screen.get("/domains", role=AccessRole.VIEW)
async def overview(visit: CurrentVisit, window: ReportWindow = ReportWindow.MONTH) -> Response:
    """Show the last DNS check of each sender, what to fix, and what receivers report."""
    addresses = _addresses(visit.parts.settings)
    since = visit.parts.now() - window.length
    states, canaries, sources, results = await visit.read(_read_overview, addresses, since)
    return visit.page(
        "domains.html",
        states=states,
        canaries=canaries,
        to_fix={state.sender: to_fix(state.findings) for state in states},
        unchecked={state.sender for state in states if is_reserved(state.domain)},
        sources=sources,
        results=results,
        window=window,
        windows=list(ReportWindow),
        tones=VERDICT_TONES,
        url_of=domains_url,
    )


def _read_overview(
    connection: sa.Connection, addresses: list[str], since: datetime
) -> tuple[list[DomainState], dict[str, CanaryState], Page[DmarcSource], Page[TlsResult]]:
    return (
        domain_states(connection, addresses),
        last_canaries(connection, addresses),
        dmarc_sources(connection, since, limit=FIRST_ROWS),
        tls_results(connection, since, limit=FIRST_ROWS),
    )


@screen.get("/domains/sender", role=AccessRole.VIEW)
async def sender(visit: CurrentVisit, address: NameText) -> Response:
    """Show all findings of one sender, and what changed since its first stored check."""
    addresses = _addresses(visit.parts.settings)
    if address not in addresses:
        raise unknown_name("sender", address, addresses)
    [state] = await visit.read(domain_states, [address])
    return visit.page(
        "domains_sender.html",
        state=state,
        history=await visit.read(domain_history, address),
        canaries=await visit.read(canaries_of, address),
        has_mailbox=visit.parts.settings.canary is not None,
        to_fix=to_fix(state.findings),
        reserved=is_reserved(state.domain),
        tones=VERDICT_TONES,
        url_of=domains_url,
    )


@screen.get("/domains/dmarc", role=AccessRole.VIEW)
async def dmarc(
    visit: CurrentVisit,
    window: ReportWindow = ReportWindow.MONTH,
    domain: OptionalName = None,
    after: Cursor = None,
) -> Response:
    """List who sends in our names."""
    since = visit.parts.now() - window.length
    page = await visit.read(dmarc_sources, since, domain=domain or None, after=after)
    return _report_page(visit, "domains_dmarc.html", window, page, after, domain=domain or None)


@screen.get("/domains/dmarc/rows", role=AccessRole.VIEW)
async def dmarc_of_source(
    visit: CurrentVisit,
    header_from: NameText,
    source_ip: NameText,
    window: ReportWindow = ReportWindow.MONTH,
    after: Cursor = None,
) -> Response:
    """List the rows of reports about one source."""
    since = visit.parts.now() - window.length
    page = await visit.read(dmarc_rows, since, header_from=header_from, source_ip=source_ip, after=after)
    of = {"header_from": header_from, "source_ip": source_ip}
    return _report_page(visit, "domains_dmarc_rows.html", window, page, after, **of)


@screen.get("/domains/tls", role=AccessRole.VIEW)
async def tls(
    visit: CurrentVisit,
    window: ReportWindow = ReportWindow.MONTH,
    domain: OptionalName = None,
    after: Cursor = None,
) -> Response:
    """List how TLS to our mail hosts went."""
    since = visit.parts.now() - window.length
    page = await visit.read(tls_results, since, domain=domain or None, after=after)
    return _report_page(visit, "domains_tls.html", window, page, after, domain=domain or None)


@screen.get("/domains/tls/rows", role=AccessRole.VIEW)
async def tls_of_result(
    visit: CurrentVisit,
    domain: NameText,
    policy: NameText = "",
    mail_host: NameText = "",
    result: NameText = "",
    window: ReportWindow = ReportWindow.MONTH,
    after: Cursor = None,
) -> Response:
    """List the rows of reports with one result."""
    since = visit.parts.now() - window.length
    page = await visit.read(tls_rows, since, of=(domain, policy, mail_host, result), after=after)
    of = {"domain": domain, "policy": policy, "mail host": mail_host, "result": result}
    return _report_page(visit, "domains_tls_rows.html", window, page, after, of=of)
