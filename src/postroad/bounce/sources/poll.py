"""One pass over a source: fetch a page, put it on the queue, put it aside last.

Killed at any point, the next pass begins with what was not put aside. What of that is kept already is known by its
digest, so nothing is judged twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from postroad.bounce.report import Envelope
from postroad.bounce.sources.fetched import MailSource, Polled
from postroad.bounce.sources.imap import ImapMailbox
from postroad.bounce.sources.maildir import Maildir
from postroad.bounce.sources.reception import Submit
from postroad.settings import SourceKind, SourceSettings

log = logging.getLogger(__name__)

PAGE = 50
"""Mails in memory at once, or fewer that are large: see `kept`."""

MAX_PAGES = 200
"""Of one pass. A mailbox with more is not done with, and the next pass goes on."""


def open_source(settings: SourceSettings) -> MailSource:
    """Open what the settings name. Raises ConfigError, UnavailableError. Blocking."""
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
) -> Polled:
    """Take in what is waiting. Raises ConfigError, UnavailableError; what was taken until then is put aside."""
    source = await asyncio.to_thread(open_, settings)
    try:
        return await drain(name, settings.kind.value, source, submit, page, max_pages)
    finally:
        await asyncio.to_thread(source.close)


async def drain(name: str, kind: str, source: MailSource, submit: Submit, page: int, max_pages: int) -> Polled:
    """Take in what an open source has waiting, a page at a time, and put each page aside last."""
    taken = known = unreadable = 0
    for _ in range(max_pages):
        mails = await asyncio.to_thread(source.fetch, page)
        if not mails:
            return Polled(source=name, taken=taken, known=known, unreadable=unreadable)
        kept: list[str] = []
        try:
            for mail in mails:
                if mail.raw is None:
                    unreadable += 1
                    log.warning("source %s: mail %s stays: %s", name, mail.key, mail.trouble)
                    continue
                submitted = await submit(mail.raw, Envelope(source=kind))
                kept.append(mail.key)
                taken, known = taken + submitted.new, known + (not submitted.new)
        finally:
            await asyncio.to_thread(source.acknowledge, kept)
    return Polled(source=name, taken=taken, known=known, unreadable=unreadable, more=True)
