"""Take mail in as it arrives, for as long as this runs: by IMAP IDLE where a server has it, else by looking again."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from postroad.bounce.sources.fetched import Failed, MailSource, Polled
from postroad.bounce.sources.imap import ImapMailbox
from postroad.bounce.sources.poll import MAX_PAGES, PAGE, drain, open_source
from postroad.bounce.sources.reception import Submit
from postroad.clock import Clock
from postroad.errors import PostroadError, UnavailableError
from postroad.settings import SourceSettings

log = logging.getLogger(__name__)


class Waits(NamedTuple):
    """Seconds between attempts: doubled from the first to the longest."""

    first_s: float
    longest_s: float

    def after(self, failures: int) -> float:
        """Seconds to wait after so many attempts that failed before this one."""
        return min(self.first_s * 2.0 ** min(failures, 20), self.longest_s)


AWAY = Waits(1.0, 60.0)
REFUSED = Waits(60.0, 900.0)
"""What somebody has to mend, such as a wrong password. Servers lock out whoever tries one again and again."""


async def watch(
    name: str,
    settings: SourceSettings,
    submit: Submit,
    *,
    clock: Clock,
    stop: asyncio.Event,
    open_: Callable[[SourceSettings], MailSource] = open_source,
    seen: Callable[[Polled | Failed], None] | None = None,
) -> None:
    """Take in what is there and what arrives, until told to stop. ``seen`` hears of every pass, and of what stops one.

    Nothing that is wrong with the source ends it, for others are watched beside it: a server that is away is tried
    again, and so is one that refuses the login or has no such mailbox, less and less often.
    """
    told = threading.Event()
    telling = asyncio.create_task(_tell(stop, told))
    failures = 0

    def looked(polled: Polled) -> None:
        nonlocal failures
        failures = 0
        if seen is not None:
            seen(polled)

    try:
        while not stop.is_set():
            try:
                source = await asyncio.to_thread(open_, settings)
                await _stay(name, settings, source, submit, told, looked)
                wait_s = settings.look_ms / 1000
            except Exception as error:
                wait_s = (AWAY if isinstance(error, UnavailableError) else REFUSED).after(failures)
                failures += 1
                _say(name, error, wait_s)
                if seen is not None:
                    seen(Failed(source=name, error=error))
            if not stop.is_set():
                await _sleep(clock, wait_s, stop)
    finally:
        telling.cancel()


def _say(name: str, error: Exception, wait_s: float) -> None:
    match error:
        case UnavailableError():
            log.warning("source %s: %s; again in %g s", name, error.message, wait_s)
        case PostroadError():
            log.error("source %s: %s; again in %g s", name, " ".join(str(error).split()), wait_s)
        case _:
            log.error("source %s failed; again in %g s", name, wait_s, exc_info=error)


async def _stay(
    name: str,
    settings: SourceSettings,
    source: MailSource,
    submit: Submit,
    told: threading.Event,
    seen: Callable[[Polled], None],
) -> None:
    """Drain a source, and with IDLE again whenever something arrives. Returns where it must be opened anew to look."""
    try:
        while True:
            polled = await drain(name, settings.kind.value, source, submit, PAGE, MAX_PAGES)
            seen(polled)
            if polled.taken or polled.known or polled.unreadable:
                log.info("source %s: %d taken, %d known", name, polled.taken, polled.known)
            if not isinstance(source, ImapMailbox) or not source.idles:
                return
            if not polled.more:
                await asyncio.to_thread(source.idle, told)
            if told.is_set():
                return
            await asyncio.to_thread(source.look_again)
    finally:
        await asyncio.to_thread(source.close)


async def _tell(stop: asyncio.Event, told: threading.Event) -> None:
    try:
        await stop.wait()
    finally:
        told.set()


async def _sleep(clock: Clock, seconds: float, stop: asyncio.Event) -> None:
    waits = [asyncio.create_task(clock.sleep(seconds)), asyncio.create_task(stop.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
