"""Take mail in as it arrives, for as long as this runs: by IMAP IDLE where a server has it, else by looking again."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from postroad.bounce.sources.fetched import Source
from postroad.bounce.sources.imap import ImapMailbox
from postroad.bounce.sources.poll import MAX_PAGES, PAGE, Polled, drain, open_source
from postroad.bounce.sources.reception import Submit
from postroad.clock import Clock
from postroad.errors import UnavailableError
from postroad.settings import SourceSettings

log = logging.getLogger(__name__)

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
"""Between attempts to reach a server that is away: doubled from the first to the longest."""


async def watch(
    name: str,
    settings: SourceSettings,
    submit: Submit,
    *,
    clock: Clock,
    stop: asyncio.Event,
    open_: Callable[[SourceSettings], Source] = open_source,
    seen: Callable[[Polled], None] = lambda _: None,
) -> None:
    """Take in what is there and what arrives, until told to stop. ``seen`` hears of every pass.

    A server that goes away is tried again, less and less often. Raises ConfigError for what only a person can mend.
    """
    told = threading.Event()
    telling = asyncio.create_task(_tell(stop, told))
    wait_s = FIRST_WAIT_S
    try:
        while not stop.is_set():
            try:
                source = await asyncio.to_thread(open_, settings)
                wait_s = FIRST_WAIT_S
                await _stay(name, settings, source, submit, clock, told, seen)
            except UnavailableError as error:
                log.warning("source %s: %s; again in %g s", name, error.message, wait_s)
                await _sleep(clock, wait_s, stop)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            else:
                if not stop.is_set():
                    await _sleep(clock, settings.look_ms / 1000, stop)
    finally:
        telling.cancel()


async def _stay(
    name: str,
    settings: SourceSettings,
    source: Source,
    submit: Submit,
    clock: Clock,
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
