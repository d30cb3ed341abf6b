"""A worker says once a minute what it sent, and nothing when that is nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import pytest

from postroad.clock import SystemClock
from postroad.delivery.sent_log import INTERVAL_S, describe, log_sent
from postroad.store.ledger import TouchState

ACCEPTED, DEFERRED, BOUNCED, DEAD = (
    TouchState.ACCEPTED,
    TouchState.DEFERRED,
    TouchState.BOUNCED,
    TouchState.DEAD,
)


class Minutes(SystemClock):
    """A clock on which so much is sent in each minute; the worker stops after the last."""

    def __init__(self, counts: Counter[TouchState], *minutes: dict[TouchState, int]) -> None:
        self._counts = counts
        self._minutes = list(minutes)

    async def sleep(self, seconds: float) -> None:
        assert seconds == INTERVAL_S == 60
        if not self._minutes:
            raise asyncio.CancelledError
        self._counts.update(self._minutes.pop(0))


async def test_a_line_a_minute_tells_of_the_minute_and_of_all(caplog: pytest.LogCaptureFixture) -> None:
    counts: Counter[TouchState] = Counter()
    clock = Minutes(counts, {}, {ACCEPTED: 1_200, BOUNCED: 2}, {}, {ACCEPTED: 300, DEFERRED: 1, DEAD: 4}, {})
    with caplog.at_level(logging.INFO), pytest.raises(asyncio.CancelledError):
        await log_sent(counts, "email:send", clock)
    assert caplog.messages == [
        "email:send, last minute: 1,200 accepted, 2 bounced; since the start: 1,200 accepted, 2 bounced",
        (
            "email:send, last minute: 300 accepted, 1 deferred, 4 failed; "
            "since the start: 1,500 accepted, 1 deferred, 2 bounced, 4 failed"
        ),
    ]


def test_what_did_not_happen_is_not_said() -> None:
    assert describe({ACCEPTED: 0, TouchState.UNKNOWN: 1}) == "1 unknown"
