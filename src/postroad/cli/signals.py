"""Signals that stop a long-running command."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from postroad.printable import PrintableFormatter
from postroad.settings import Settings

log = logging.getLogger(__name__)


STOP_WITHIN_S = 25.0
"""Longest time from SIGTERM to the exit of every role but a worker. Service managers wait longer before they kill."""


def stop_on_signals(within_s: float | None = None) -> asyncio.Event:
    """Return an event that the first SIGTERM or SIGINT sets. The second ends the process at once.

    Args:
        within_s: Time after the first signal after which the process exits with status 1, even if its event loop or a
            thread waits for a server that does not answer. None: it may take any time.

    Returns:
        The event.
    """
    stop = asyncio.Event()

    def handle(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        log.info("stopping: what is under way finishes, the rest is given back; a second signal exits at once")
        stop.set()
        if within_s is not None:
            deadline = threading.Timer(within_s, _exit_late, [within_s])
            deadline.daemon = True
            deadline.start()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle, number)
    return stop


def _exit_late(within_s: float) -> None:
    log.error("not stopped within %g s: a server does not answer. The process exits now", within_s)
    os._exit(1)


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that it deletes its unfinished files."""
    if threading.current_thread() is not threading.main_thread():  # Only that one may set handlers.
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def start_logging(settings: Settings) -> None:
    """Log to standard error, one line for each thing that happened."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
