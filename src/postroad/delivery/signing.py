"""Makes DKIM signatures with RSA in separate processes.

RSA signing releases the GIL, so threads could do it. But a thread waits for the GIL after each signature, which costs
most of the gain: see docs/adr/0010. The round trip to a process has a cost of its own, so the messages that arrive
while all processes are busy are batched.
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
MAX_BATCH = 64
"""Maximum number of messages of a batch. A batch takes about 16 ms."""
SIGNING_TIMEOUT_S = 10.0


class SigningPool:
    """Signs messages in a pool of processes. Close it at the end."""

    def __init__(self, processes: int = PROCESSES) -> None:
        self._free = [_Signer() for _ in range(processes)]
        self._signers = list(self._free)
        self._waiting: deque[tuple[Message, asyncio.Future[Message]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def aclose(self) -> None:
        """Cancel batches in progress, and end the processes."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for signer in self._signers:
            await signer.aclose()

    async def signed(self, message: Message) -> Message:
        """Return a message with its signatures. An error of its key is raised as it is."""
        if not message.has_rsa:
            return message.signed()  # Ed25519 takes less time than a round trip.
        if self._closed:
            raise RuntimeError("the signing pool is closed")
        result: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, result))
        if self._free:
            task = asyncio.create_task(self._run_batches(self._free.pop()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await result

    async def _run_batches(self, signer: _Signer) -> None:
        """Sign the waiting messages in batches, which leave a share to each free process."""
        try:
            while self._waiting:
                share = min(-(-len(self._waiting) // (len(self._free) + 1)), MAX_BATCH)
                batch = [self._waiting.popleft() for _ in range(share)]
                outcomes = await _sign(signer, [message for message, _ in batch])
                for (_, result), outcome in zip(batch, outcomes, strict=True):
                    if result.done():
                        continue  # cancelled
                    if isinstance(outcome, Message):
                        result.set_result(outcome)
                    else:
                        result.set_exception(outcome)
        finally:
            self._free.append(signer)


async def _sign(signer: _Signer, messages: Sequence[Message]) -> list[Message | Exception]:
    """Sign messages in the process of a signer, or in this one if that fails."""
    work = [
        unsigned
        for message in messages
        for unsigned in message.pending_signatures
        if unsigned.key.algorithm is Algorithm.RSA
    ]
    try:
        async with asyncio.timeout(SIGNING_TIMEOUT_S):
            signatures = iter(await signer.sign(work))
    except Exception as error:  # Event loops raise different errors for a write to an ended process.
        log.warning("the signing process failed, so this process makes %d signatures: %r", len(work), error)
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
    """One signing process, started when it is first needed, and again after it died."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._numbers: dict[DkimKey, int] = {}

    async def sign(self, work: Sequence[PendingSignature]) -> list[bytes]:
        """Return the signatures, in the order of the requests.

        Raises:
            OSError: The process cannot be started, or its input is closed.
            EOFError: It ended before its reply.
            ValueError: Its reply does not match.
        """
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
