"""Watches a source continuously: by IMAP IDLE if the server supports it, else by polling."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from postroad.bounce.sources.imap import ImapMailbox
from postroad.bounce.sources.poll import MAX_PAGES, PAGE, drain, open_source
from postroad.bounce.sources.smtp_handler import Submit
from postroad.bounce.sources.source import MailSource, PollFailure, PollResult
from postroad.clock import Clock
from postroad.errors import PostroadError, UnavailableError
from postroad.settings import SourceSettings

log = logging.getLogger(__name__)


class RetryDelays(NamedTuple):
    """Delays between attempts, in seconds: doubled from the first to the longest."""

    first_s: float
    longest_s: float

    def after(self, failures: int) -> float:
        """Return the delay after a failed attempt. ``failures``: number of failed attempts before it."""
        return min(self.first_s * 2.0 ** min(failures, 20), self.longest_s)


UNAVAILABLE = RetryDelays(1.0, 60.0)
MISCONFIGURED = RetryDelays(60.0, 900.0)
"""Delays after an error that an operator has to fix, such as a wrong password. Servers lock out a client that retries
often."""


async def watch(
    name: str,
    settings: SourceSettings,
    submit: Submit,
    *,
    clock: Clock,
    stop: asyncio.Event,
    open_: Callable[[SourceSettings], MailSource] = open_source,
    on_poll: Callable[[PollResult | PollFailure], None] | None = None,
) -> None:
    """Submit the waiting mails of a source and all that arrive, until ``stop`` is set.

    No error ends it, because other sources are watched in the same process. An unavailable server is retried after a
    short delay, a misconfigured source after a longer one. Both delays double with each failure.

    Args:
        name: Name of the source.
        settings: Settings of the source.
        submit: Stores and enqueues a mail.
        clock: Time source.
        stop: Ends the watch.
        open_: Opens the source.
        on_poll: Receives the result of each poll, and each failure.
    """
    stop_thread = threading.Event()
    forwarding = asyncio.create_task(_forward(stop, stop_thread))
    failures = 0

    def polled(result: PollResult) -> None:
        nonlocal failures
        failures = 0
        if on_poll is not None:
            on_poll(result)

    try:
        while not stop.is_set():
            try:
                source = await asyncio.to_thread(open_, settings)
                await _drain_and_idle(name, settings, source, submit, stop_thread, polled)
                delay_s = settings.look_ms / 1000
            except Exception as error:
                delay_s = (UNAVAILABLE if isinstance(error, UnavailableError) else MISCONFIGURED).after(failures)
                failures += 1
                _log_failure(name, error, delay_s)
                if on_poll is not None:
                    on_poll(PollFailure(source=name, error=error))
            if not stop.is_set():
                await _sleep(clock, delay_s, stop)
    finally:
        forwarding.cancel()


def _log_failure(name: str, error: Exception, delay_s: float) -> None:
    match error:
        case UnavailableError():
            log.warning("source %s: %s; again in %g s", name, error.message, delay_s)
        case PostroadError():
            log.error("source %s: %s; again in %g s", name, " ".join(str(error).split()), delay_s)
        case _:
            log.error("source %s failed; again in %g s", name, delay_s, exc_info=error)


async def _drain_and_idle(
    name: str,
    settings: SourceSettings,
    source: MailSource,
    submit: Submit,
    stop: threading.Event,
    on_poll: Callable[[PollResult], None],
) -> None:
    """Drain a source. With IDLE, wait for new mail and drain again; without it, return to be opened again later."""
    try:
        while True:
            result = await drain(name, settings.kind.value, source, submit, PAGE, MAX_PAGES, stop)
            on_poll(result)
            if result.taken or result.known or result.unreadable:
                log.info("source %s: %d taken, %d known", name, result.taken, result.known)
            if not isinstance(source, ImapMailbox) or not source.idles:
                return
            if not result.more:
                await asyncio.to_thread(source.idle, stop)
            if stop.is_set():
                return
            await asyncio.to_thread(source.search_again)
    finally:
        await asyncio.to_thread(source.close)


async def _forward(stop: asyncio.Event, stop_thread: threading.Event) -> None:
    """Set the event of the thread when the event of the task is set, or when cancelled."""
    try:
        await stop.wait()
    finally:
        stop_thread.set()


async def _sleep(clock: Clock, seconds: float, stop: asyncio.Event) -> None:
    """Sleep until the time is over or ``stop`` is set."""
    tasks = [asyncio.create_task(clock.sleep(seconds)), asyncio.create_task(stop.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
