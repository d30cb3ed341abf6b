"""Where what comes back comes in, whatever brings it: kept in the store first, then on the queue ``bounce:process``.

The store keeps the mail itself, so that workers on other hosts have it, and a lost queue is made again from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from postroad.bounce.kept import kept
from postroad.bounce.match import recipient_key
from postroad.bounce.report import Envelope
from postroad.clock import Clock
from postroad.errors import DataError
from postroad.queue import Job, JobClass, Lane, Queue
from postroad.store.bounce import BounceMail, is_processed, keep_mail, waiting_mails
from postroad.store.engine import read, write
from postroad.store.text import storable_text
from postroad.store.webhook import use_token

BOUNCE_QUEUE = "bounce:process"
QUEUE_GATE = "queue"
LANE = Lane(name="what came back", gates=(QUEUE_GATE,))
REPORTS_GATE = "reports"
REPORTS_LANE = Lane(name="reports of receivers", gates=(QUEUE_GATE, REPORTS_GATE), job_class=JobClass.BULK)
CHUNK = 1_000


class ProcessBounce(msgspec.Struct, frozen=True, kw_only=True, tag="bounce.v1"):
    """Judge one mail, which the store keeps under this digest. ``reports``: read its reports instead."""

    digest: str
    reports: bool = False


encode_job = msgspec.msgpack.Encoder().encode
decode_job = msgspec.msgpack.Decoder(ProcessBounce).decode


@dataclass(frozen=True, kw_only=True)
class IntakeResult:
    """One mail taken in. ``new`` False: the same octets for the same recipient were here before."""

    digest: str
    new: bool


def digest_of(raw: bytes, envelope: Envelope) -> str:
    """Name of a mail: the same octets for the same token or address are the same mail, whoever brings them."""
    digest = sha256(recipient_key(envelope.recipient or "").encode("utf-8", "replace") + b"\0")
    digest.update(raw)
    return digest.hexdigest()


class UsedTokenError(DataError):
    """What may come once came again."""


class _Kept(NamedTuple):
    new: bool
    judged: bool


class Intake:
    """Takes in what comes back. When `submit` has returned, the mail is kept and will be judged."""

    def __init__(self, *, engine: sa.Engine, queue: Queue, clock: Clock) -> None:
        self._engine = engine
        self._queue = queue
        self._clock = clock

    async def submit(self, raw: bytes, envelope: Envelope) -> IntakeResult:
        """Keep a mail and put it on the queue. Doing so twice is harmless. Raises UnavailableError: try again."""
        [submitted] = await self.submit_all([(raw, envelope)])
        return submitted

    async def submit_all(
        self, mails: Sequence[tuple[bytes, Envelope]], *, token: str | None = None
    ) -> Sequence[IntakeResult]:
        """Keep several mails in one transaction, and put them on the queue, as `submit` does with one.

        ``token``: what came with them, and comes once. Raises UsedTokenError, and keeps nothing, if it came before.
        """
        named = [(digest_of(raw, envelope), raw, envelope) for raw, envelope in mails]
        kept = await asyncio.to_thread(self._keep, named, token)
        waiting = [digest for (digest, _, _), one in zip(named, kept, strict=True) if not one.judged]
        await self._enqueue(list(dict.fromkeys(waiting)))
        return [IntakeResult(digest=digest, new=one.new) for (digest, _, _), one in zip(named, kept, strict=True)]

    async def resume(self) -> int:
        """Put on the queue what is kept and was not judged, as after a loss of the queue. Returns how many."""
        waiting = await asyncio.to_thread(self._waiting)
        await self._enqueue([digest for digest, reports in waiting if not reports])
        await self.enqueue_reports([digest for digest, reports in waiting if reports])
        return len(waiting)

    async def enqueue_reports(self, digests: Sequence[str]) -> None:
        """Have the reports of judged mails read, one mail at a time, and after what came back."""
        jobs = [
            Job(id=f"{digest}:reports", payload=encode_job(ProcessBounce(digest=digest, reports=True)))
            for digest in digests
        ]
        if jobs:
            await self._queue.enqueue(REPORTS_LANE, jobs)

    async def _enqueue(self, digests: list[str]) -> None:
        jobs = [Job(id=digest, payload=encode_job(ProcessBounce(digest=digest))) for digest in digests]
        if jobs:
            await self._queue.enqueue(LANE, jobs)

    def _keep(self, mails: Sequence[tuple[str, bytes, Envelope]], token: str | None) -> list[_Kept]:
        now = self._clock.now()
        # To cut a mail takes a look into it, for which no transaction waits.
        cut = [(digest, kept(raw), envelope) for digest, raw, envelope in mails]
        with write(self._engine) as connection:
            if token is not None and not use_token(connection, sha256(token.encode()).hexdigest(), now):
                raise UsedTokenError("it came before, with a call that was taken")
            return [self._keep_one(connection, digest, raw, envelope, now) for digest, raw, envelope in cut]

    def _keep_one(self, connection: sa.Connection, digest: str, raw: bytes, envelope: Envelope, now: datetime) -> _Kept:
        mail = BounceMail(
            digest=digest,
            received_at=now,
            source=storable_text(envelope.source, 24) or "file",
            mail_from=None if envelope.mail_from is None else storable_text(envelope.mail_from, 320),
            recipient=None if envelope.recipient is None else storable_text(envelope.recipient, 320),
            raw=raw,
        )
        new = keep_mail(connection, mail)
        return _Kept(new, not new and is_processed(connection, digest))

    def _waiting(self) -> list[tuple[str, bool]]:
        with read(self._engine) as connection:
            return waiting_mails(connection, CHUNK)
