"""DKIM signatures on threads: RSA signs without Python's lock, so it has a core beside the one that merges and sends.

A trip to a thread and back costs besides the signature, so messages go together: those that come while the threads are
busy.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from postroad.mail.message import Message

THREADS = min(os.cpu_count() or 1, 4)
TOGETHER = 16
"""Messages of one trip, at most: some five milliseconds for the first of them to wait."""


class Signing:
    """Signs messages. Close it at the end."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = ThreadPoolExecutor(threads, "dkim")
        self._free = threads
        self._waiting: deque[tuple[Message, asyncio.Future[Message]]] = deque()
        self._trips: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Sign nothing more; nobody waits for what is under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def signed(self, message: Message) -> Message:
        """Return a message with its signatures. Raises what its key raises."""
        if not message.slow_to_sign:
            return message.signed()  # Ed25519 is done before a thread would have begun.
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, answer))
        if self._free:
            self._free -= 1
            trip = asyncio.create_task(self._go())
            self._trips.add(trip)
            trip.add_done_callback(self._trips.discard)
        return await answer

    async def _go(self) -> None:
        """Sign what waits, a share at a time, so that every thread has one."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                share = min(-(-len(self._waiting) // (self._free + 1)), TOGETHER)
                asked = [self._waiting.popleft() for _ in range(share)]
                try:
                    signed = await loop.run_in_executor(self._threads, _sign, [message for message, _ in asked])
                except RuntimeError as error:  # closed meanwhile
                    signed = [error] * share
                for (_, answer), outcome in zip(asked, signed, strict=True):
                    if answer.done():
                        continue  # cancelled
                    if isinstance(outcome, Message):
                        answer.set_result(outcome)
                    else:
                        answer.set_exception(outcome)
        finally:
            self._free += 1


def _sign(messages: Sequence[Message]) -> list[Message | Exception]:
    outcomes: list[Message | Exception] = []
    for message in messages:
        try:
            outcomes.append(message.signed())
        except Exception as error:
            outcomes.append(error)
    return outcomes
