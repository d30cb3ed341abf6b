"""Polls a source once: fetches a page of mails, submits them, and acknowledges them last.

If the process is killed, the next poll begins with the mails that were not acknowledged. Mails that are already stored
are recognised by their digest, so none is processed twice.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from postroad.bounce.report import Envelope
from postroad.bounce.sources.imap import ImapMailbox
from postroad.bounce.sources.maildir import Maildir
from postroad.bounce.sources.smtp_handler import Submit
from postroad.bounce.sources.source import MailSource, PollResult
from postroad.settings import SourceKind, SourceSettings

log = logging.getLogger(__name__)

PAGE = 50
"""Maximum mails in memory. A page of large mails has fewer: see `truncation.MAX_PAGE_BYTES`."""

MAX_PAGES = 200
"""Maximum pages of one poll. The next poll continues with the rest."""


def open_source(settings: SourceSettings) -> MailSource:
    """Open a source by its settings. Blocking. Raises ConfigError, UnavailableError."""
    match settings.kind:
        case SourceKind.MAILDIR:
            return Maildir(settings.path or Path(), delete=settings.delete)
        case SourceKind.IMAP:
            return ImapMailbox(settings)
        case other:
            assert_never(other)


async def poll(
    name: str,
    settings: SourceSettings,
    submit: Submit,
    *,
    page: int = PAGE,
    max_pages: int = MAX_PAGES,
    open_: Callable[[SourceSettings], MailSource] = open_source,
) -> PollResult:
    """Open a source and submit its waiting mails. Raises ConfigError, UnavailableError.

    If it raises, the mails that were submitted before are acknowledged.

    Args:
        name: Name of the source.
        settings: Settings of the source.
        submit: Stores and enqueues a mail.
        page: Maximum mails of a page.
        max_pages: Maximum pages.
        open_: Opens the source.

    Returns:
        The number of mails.
    """
    source = await asyncio.to_thread(open_, settings)
    try:
        return await drain(name, settings.kind.value, source, submit, page, max_pages)
    finally:
        await asyncio.to_thread(source.close)


async def drain(
    name: str,
    kind: str,
    source: MailSource,
    submit: Submit,
    page: int,
    max_pages: int,
    stop: threading.Event | None = None,
) -> PollResult:
    """Submit the waiting mails of an open source, page by page. Each page is acknowledged after its submission.

    Args:
        name: Name of the source.
        kind: Kind of the source, for the envelope.
        source: The open source.
        submit: Stores and enqueues a mail.
        page: Maximum mails of a page.
        max_pages: Maximum pages.
        stop: Ends it after the current page.

    Returns:
        The number of mails.
    """
    taken = known = unreadable = 0
    for _ in range(max_pages):
        if stop is not None and stop.is_set():
            break
        mails = await asyncio.to_thread(source.fetch, page)
        if not mails:
            return PollResult(source=name, taken=taken, known=known, unreadable=unreadable)
        stored: list[str] = []
        try:
            for mail in mails:
                if mail.raw is None:
                    unreadable += 1
                    log.warning("source %s: mail %s is unreadable and stays: %s", name, mail.key, mail.error)
                    continue
                result = await submit(mail.raw, Envelope(source=kind))
                stored.append(mail.key)
                taken, known = taken + result.new, known + (not result.new)
        finally:
            await asyncio.to_thread(source.acknowledge, stored)
    return PollResult(source=name, taken=taken, known=known, unreadable=unreadable, more=True)
