"""Accepts inbound mail from all sources: stores it in the database, then enqueues it in ``bounce:process``.

The database has the mail itself, so that workers on other hosts can read it, and a lost queue can be rebuilt.
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

from postroad.bounce.match import recipient_key
from postroad.bounce.report import Envelope
from postroad.bounce.truncation import truncate
from postroad.clock import Clock
from postroad.errors import DataError
from postroad.queue import Job, JobClass, Lane, Queue
from postroad.store.bounce import BounceMail, is_processed, save_mail, waiting_mails
from postroad.store.engine import read, write
from postroad.store.text import storable_text
from postroad.store.webhook import use_token

BOUNCE_QUEUE = "bounce:process"
QUEUE_GATE = "queue"
LANE = Lane(name="bounces", gates=(QUEUE_GATE,))
REPORTS_GATE = "reports"
REPORTS_LANE = Lane(name="DMARC and TLS reports", gates=(QUEUE_GATE, REPORTS_GATE), job_class=JobClass.BULK)
RESUME_BATCH = 1_000


class ProcessBounce(msgspec.Struct, frozen=True, kw_only=True, tag="bounce.v1"):
    """Payload of a job: process the mail with this digest. ``reports``: read its attached reports instead."""

    digest: str
    reports: bool = False


encode_job = msgspec.msgpack.Encoder().encode
decode_job = msgspec.msgpack.Decoder(ProcessBounce).decode


@dataclass(frozen=True, kw_only=True)
class IntakeResult:
    """Result for one accepted mail. ``new`` False: a mail with the same octets and recipient is already stored."""

    digest: str
    new: bool


def digest_of(raw: bytes, envelope: Envelope) -> str:
    """Return the digest of a mail: of its octets and its recipient (token or address), independent of the source."""
    digest = sha256(recipient_key(envelope.recipient or "").encode("utf-8", "replace") + b"\0")
    digest.update(raw)
    return digest.hexdigest()


class UsedTokenError(DataError):
    """A token that is valid once was used again."""


class _StoreResult(NamedTuple):
    new: bool
    processed: bool


class Intake:
    """Accepts inbound mail. Once `submit` has returned, the mail is stored and will be processed."""

    def __init__(self, *, engine: sa.Engine, queue: Queue, clock: Clock) -> None:
        self._engine = engine
        self._queue = queue
        self._clock = clock

    async def submit(self, raw: bytes, envelope: Envelope) -> IntakeResult:
        """Store and enqueue a mail. Idempotent. Raises UnavailableError."""
        [submitted] = await self.submit_all([(raw, envelope)])
        return submitted

    async def submit_all(
        self, mails: Sequence[tuple[bytes, Envelope]], *, token: str | None = None
    ) -> Sequence[IntakeResult]:
        """Store several mails in one transaction, and enqueue them. Raises UnavailableError, UsedTokenError.

        Args:
            mails: The mails and their envelopes.
            token: Token of the call that delivered the mails. If it was used before, no mail is stored.

        Returns:
            The result for each mail.
        """
        with_digests = [(digest_of(raw, envelope), raw, envelope) for raw, envelope in mails]
        stored = await asyncio.to_thread(self._keep, with_digests, token)
        results = [(digest, result) for (digest, _, _), result in zip(with_digests, stored, strict=True)]
        await self._enqueue(list(dict.fromkeys(digest for digest, result in results if not result.processed)))
        return [IntakeResult(digest=digest, new=result.new) for digest, result in results]

    async def resume(self) -> int:
        """Enqueue stored mails that are not processed, as after a loss of the queue. Returns their number."""
        waiting = await asyncio.to_thread(self._waiting)
        await self._enqueue([digest for digest, reports in waiting if not reports])
        await self.enqueue_reports([digest for digest, reports in waiting if reports])
        return len(waiting)

    async def enqueue_reports(self, digests: Sequence[str]) -> None:
        """Enqueue processed mails, so that their attached reports are read one mail at a time, after all bounces."""
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

    def _keep(self, mails: Sequence[tuple[str, bytes, Envelope]], token: str | None) -> list[_StoreResult]:
        now = self._clock.now()
        # Truncation parses a large mail, so it is done before the transaction.
        truncated = [(digest, truncate(raw), envelope) for digest, raw, envelope in mails]
        with write(self._engine) as connection:
            if token is not None and not use_token(connection, sha256(token.encode()).hexdigest(), now):
                raise UsedTokenError("the token was used before, by an accepted call")
            return [self._keep_one(connection, digest, raw, envelope, now) for digest, raw, envelope in truncated]

    def _keep_one(
        self, connection: sa.Connection, digest: str, raw: bytes, envelope: Envelope, now: datetime
    ) -> _StoreResult:
        mail = BounceMail(
            digest=digest,
            received_at=now,
            source=storable_text(envelope.source, 24) or "file",
            mail_from=None if envelope.mail_from is None else storable_text(envelope.mail_from, 320),
            recipient=None if envelope.recipient is None else storable_text(envelope.recipient, 320),
            raw=raw,
        )
        new = save_mail(connection, mail)
        return _StoreResult(new, not new and is_processed(connection, digest))

    def _waiting(self) -> list[tuple[str, bool]]:
        with read(self._engine) as connection:
            return waiting_mails(connection, RESUME_BATCH)
