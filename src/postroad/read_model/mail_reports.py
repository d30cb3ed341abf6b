"""What receivers report of mail in our names (DMARC), and senders of TLS to our mail hosts: sums, and their rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import sqlalchemy as sa

from postroad.read_model.page import DEFAULT_LIMIT, Page, checked_limit, decode_cursor, to_page
from postroad.store.mail_report_page import (
    DmarcLine,
    DmarcSource,
    TlsLine,
    TlsResult,
    dmarc_lines,
    dmarc_source_page,
    tls_lines,
    tls_result_page,
)

_MOST: Final = 2**63 - 1


class ReportWindow(StrEnum):
    """How far back a page of reports looks."""

    WEEK = "7d"
    MONTH = "30d"
    QUARTER = "90d"

    @property
    def length(self) -> timedelta:
        return timedelta(days=int(self.value[:-1]))


def dmarc_sources(
    connection: sa.Connection,
    since: datetime,
    *,
    domain: str | None = None,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[DmarcSource]:
    """Return who sent in the names of our domains, those with the most mail first.

    Args:
        connection: A connection in a transaction.
        since: Only reports that end since then.
        domain: Only this From domain; None: all.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    before = decode_cursor(after, tuple[int, str, str], (_MOST, "", ""))
    rows = dmarc_source_page(connection, since=since, domain=domain, before=before, limit=limit + 1)
    return to_page(rows, limit, lambda row: (row.mails, row.header_from, row.source_ip))


def dmarc_rows(
    connection: sa.Connection,
    since: datetime,
    *,
    header_from: str,
    source_ip: str,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[DmarcLine]:
    """Return the rows of reports about one source of `dmarc_sources`, the newest first.

    Args:
        connection: A connection in a transaction.
        since: Only reports that end since then.
        header_from: The From domain.
        source_ip: The address of the source.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    before_id = decode_cursor(after, int, _MOST)
    rows = dmarc_lines(
        connection, since=since, header_from=header_from, source_ip=source_ip, before_id=before_id, limit=limit + 1
    )
    return to_page(rows, limit, lambda row: row.id)


def tls_results(
    connection: sa.Connection,
    since: datetime,
    *,
    domain: str | None = None,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[TlsResult]:
    """Return how TLS to our mail hosts went, the results of the most sessions first.

    Args:
        connection: A connection in a transaction.
        since: Only reports that end since then.
        domain: Only this domain of ours; None: all.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    before = decode_cursor(after, tuple[int, str, str, str, str], (_MOST, "", "", "", ""))
    rows = tls_result_page(connection, since=since, domain=domain, before=before, limit=limit + 1)
    return to_page(rows, limit, lambda row: (row.sessions, row.domain, row.policy, row.mail_host, row.result))


def tls_rows(
    connection: sa.Connection,
    since: datetime,
    *,
    of: tuple[str, str, str, str],
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[TlsLine]:
    """Return the rows of reports with one result of `tls_results`, the newest first.

    Args:
        connection: A connection in a transaction.
        since: Only reports that end since then.
        of: Domain, policy, mail host and result.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    before_id = decode_cursor(after, int, _MOST)
    rows = tls_lines(connection, since=since, of=of, before_id=before_id, limit=limit + 1)
    return to_page(rows, limit, lambda row: row.id)
