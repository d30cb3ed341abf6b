"""DKIM signatures by RSA in processes of their own, beside the one that merges and sends.

RSA signs without Python's lock, so threads could do it. But a thread that has signed waits for the lock before it takes
the next, and that took most of what it saved: see docs/adr/0010. A trip to another process and back costs besides the
signature, so messages go together: those that come while the processes are busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections import deque
from collections.abc import Sequence

from cryptography.hazmat.primitives import serialization

from postroad.delivery.signing_worker import LENGTH, Request, decode_answer, encode, framed
from postroad.mail.dkim import Algorithm, DkimKey, PendingSignature
from postroad.mail.message import Message

log = logging.getLogger(__name__)

PROCESSES = min(os.cpu_count() or 1, 4)
TOGETHER = 64
"""Messages of one trip, at most: some 16 ms for the first of them to wait."""
ANSWERS_WITHIN_S = 10.0


class SigningPool:
    """Signs messages. Close it at the end."""

    def __init__(self, processes: int = PROCESSES) -> None:
        self._free = [_Signer() for _ in range(processes)]
        self._signers = list(self._free)
        self._waiting: deque[tuple[Message, asyncio.Future[Message]]] = deque()
        self._trips: set[asyncio.Task[None]] = set()
        self._closed = False

    async def aclose(self) -> None:
        """Sign nothing more; nobody waits for what is under way."""
        self._closed = True
        for trip in self._trips:
            trip.cancel()
        await asyncio.gather(*self._trips, return_exceptions=True)
        for signer in self._signers:
            await signer.aclose()

    async def signed(self, message: Message) -> Message:
        """Return a message with its signatures. Raises what its key raises."""
        if not message.slow_to_sign:
            return message.signed()  # Ed25519 is done before the trip would have begun.
        if self._closed:
            raise RuntimeError("nothing is signed any more")
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, answer))
        if self._free:
            trip = asyncio.create_task(self._go(self._free.pop()))
            self._trips.add(trip)
            trip.add_done_callback(self._trips.discard)
        return await answer

    async def _go(self, signer: _Signer) -> None:
        """Have signed what waits, a share at a time, so that every process has one."""
        try:
            while self._waiting:
                share = min(-(-len(self._waiting) // (len(self._free) + 1)), TOGETHER)
                asked = [self._waiting.popleft() for _ in range(share)]
                outcomes = await _sign(signer, [message for message, _ in asked])
                for (_, answer), outcome in zip(asked, outcomes, strict=True):
                    if answer.done():
                        continue  # cancelled
                    if isinstance(outcome, Message):
                        answer.set_result(outcome)
                    else:
                        answer.set_exception(outcome)
        finally:
            self._free.append(signer)


async def _sign(signer: _Signer, messages: Sequence[Message]) -> list[Message | Exception]:
    """Have messages signed; by ourselves, where the process does not."""
    work = [
        unsigned for message in messages for unsigned in message.unsigned if unsigned.key.algorithm is Algorithm.RSA
    ]
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            signatures = iter(await signer.sign(work))
    except Exception as error:  # Event loops disagree on what a write to a process that has ended raises.
        log.warning("the process that signs is away, and %d signatures are made without it: %r", len(work), error)
        await signer.aclose()
        return await asyncio.to_thread(_sign_here, messages)
    return [message.signed(signatures) for message in messages]


def _sign_here(messages: Sequence[Message]) -> list[Message | Exception]:
    outcomes: list[Message | Exception] = []
    for message in messages:
        try:
            outcomes.append(message.signed())
        except Exception as error:
            outcomes.append(error)
    return outcomes


class _Signer:
    """One process, started when it is first needed, and anew when it has died."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._numbers: dict[DkimKey, int] = {}

    async def sign(self, work: Sequence[PendingSignature]) -> list[bytes]:
        """Return their signatures. Raises OSError, EOFError or ValueError when the process is not up to it."""
        if self._process is None:
            self._numbers = {}
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "postroad.delivery.signing_worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:
            raise OSError("it has no pipes")
        requests.write(framed(encode(self._request(work))))
        await requests.drain()
        head = await answers.readexactly(LENGTH)
        signatures = decode_answer(await answers.readexactly(int.from_bytes(head)))
        if len(signatures) != len(work):
            raise ValueError(f"{len(signatures)} signatures for {len(work)}")
        return signatures

    def _request(self, work: Sequence[PendingSignature]) -> Request:
        new = {unsigned.key for unsigned in work} - self._numbers.keys()
        self._numbers |= {key: number for number, key in enumerate(new, len(self._numbers))}
        return Request(
            keys={self._numbers[key]: _der(key) for key in new},
            work=[(self._numbers[unsigned.key], unsigned.octets) for unsigned in work],
        )

    async def aclose(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _der(key: DkimKey) -> bytes:
    return key.private_key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
