"""Signals that stop a long-running command."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

from postroad.printable import PrintableFormatter
from postroad.settings import Settings

log = logging.getLogger(__name__)


def stop_on_signals() -> asyncio.Event:
    """Event that the first SIGTERM or SIGINT sets. The second ends the process at once."""
    stop = asyncio.Event()

    def handle(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        log.info("stopping: what is under way finishes, the rest is given back; a second signal exits at once")
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle, number)
    return stop


def start_logging(settings: Settings) -> None:
    """Log to standard error, one line for each thing that happened."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
