"""Counts how much mail each organisation sends to large mailbox providers, for its DNS report."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import sqlalchemy as sa

from postroad.dns.bulk_sender import bulk_sender
from postroad.dns.dmarc import NoAnswerError, walk
from postroad.dns.health import HealthReport
from postroad.dns.providers import OTHER_PROVIDERS, provider_table
from postroad.dns.resolver import Resolver
from postroad.errors import DataError
from postroad.mail.address import ascii_domain
from postroad.store.engine import read
from postroad.store.warmup import AcceptedMail, Span, accepted_mail

COUNTED_DAYS = 7
"""Days in UTC that are counted, today included."""

Volumes = Mapping[str, Mapping[tuple[date, str], int]]
"""By From domain: messages by day and mailbox provider."""


async def with_volume(
    resolver: Resolver, engine: sa.Engine, reports: Sequence[HealthReport], now: datetime
) -> list[HealthReport]:
    """Add the requirements of large mailbox providers for bulk senders to reports.

    The mail of all domains of an organisation is added up. A domain whose organisation DNS does not tell counts alone.

    Args:
        resolver: Finds the organisational domain (RFC 9989 §4.10).
        engine: The ledger's database.
        reports: The reports.
        now: The time.

    Returns:
        The reports with additional findings.

    Raises:
        UnavailableError: The database is unavailable.
    """
    volumes = await asyncio.to_thread(volumes_of, engine, now)
    names = sorted({*volumes, *(report.domain for report in reports)})
    organisations = dict(
        zip(names, await asyncio.gather(*(_organisation(resolver, name) for name in names)), strict=True)
    )
    return [_with_findings(report, volumes, organisations) for report in reports]


def _with_findings(report: HealthReport, volumes: Volumes, organisations: Mapping[str, str]) -> HealthReport:
    organisation = organisations[report.domain]
    most = busiest(volume for domain, volume in volumes.items() if organisations[domain] == organisation)
    return replace(report, findings=(*report.findings, *bulk_sender(organisation, most, report.findings)))


async def _organisation(resolver: Resolver, domain: str) -> str:
    try:
        return (await walk(resolver, domain)).organisation
    except NoAnswerError:
        return domain


def busiest(volumes: Iterable[Mapping[tuple[date, str], int]]) -> dict[str, int]:
    """Return the number of messages on the busiest day, by mailbox provider, for all volumes together."""
    total: Counter[tuple[date, str]] = Counter()
    for volume in volumes:
        total.update(volume)
    most: dict[str, int] = {}
    for (_, provider), messages in total.items():
        most[provider] = max(most.get(provider, 0), messages)
    return most


def volumes_of(engine: sa.Engine, now: datetime) -> Volumes:
    """Count the mail accepted in the last days.

    Returns:
        The counts by From domain.

    Raises:
        UnavailableError: The database is unavailable.
    """
    today = now.astimezone(UTC).date()
    begins = [datetime.combine(today - timedelta(days=n), time(), tzinfo=UTC) for n in range(COUNTED_DAYS)]
    spans = [Span(begin.date(), begin, begin + timedelta(days=1)) for begin in begins]
    with read(engine) as connection:
        rows = accepted_mail(connection, spans)
    volumes: dict[str, Counter[tuple[date, str]]] = defaultdict(Counter)
    for row in rows:
        volumes[_from_domain(row)][row.day, _provider(row)] += row.messages
    return volumes


def _from_domain(row: AcceptedMail) -> str:
    domain = row.sender.rpartition("@")[2].lower()
    try:
        return ascii_domain(domain)
    except DataError:
        return domain


def _provider(row: AcceptedMail) -> str:
    return provider_table().of_domain(row.domain) or row.provider or OTHER_PROVIDERS
