"""Logs once a minute what a worker sent."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Final

from postroad.clock import Clock
from postroad.store.ledger import TouchState

log = logging.getLogger(__name__)

INTERVAL_S: Final = 60.0
SHOWN: Final = {
    TouchState.ACCEPTED: "accepted",
    TouchState.DEFERRED: "deferred",
    TouchState.BOUNCED: "bounced",
    TouchState.DEAD: "failed",
    TouchState.UNKNOWN: "unknown",
}


def describe(counts: Mapping[TouchState, int]) -> str:
    """Return counts as text, without zeros: "1,200 accepted, 3 deferred"."""
    return ", ".join(f"{counts[state]:,} {word}" for state, word in SHOWN.items() if counts.get(state))


async def log_sent(counts: Counter[TouchState], queue: str, clock: Clock) -> None:
    """Log once a minute what was sent since the last line and in total, until cancelled. Idle minutes are skipped.

    Args:
        counts: Outcomes of the messages that this process tried; its handler updates them.
        queue: Name of the queue.
        clock: The clock.
    """
    before: Counter[TouchState] = Counter()
    while True:
        await clock.sleep(INTERVAL_S)
        now = Counter(counts)
        if now != before:
            log.info("%s, last minute: %s; since the start: %s", queue, describe(now - before), describe(now))
        before = now
