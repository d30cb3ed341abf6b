"""Replies to SMTP and LMTP commands: accepts recipients, limits clients, and submits received mail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiosmtpd.smtp import SMTP, Session
from aiosmtpd.smtp import Envelope as Transaction

from postroad.bounce.intake import IntakeResult
from postroad.bounce.report import Envelope
from postroad.bounce.sources.metrics import InboundMetrics, InboundReply
from postroad.bounce.sources.recipient_policy import RecipientPolicy
from postroad.bounce.sources.throttle import Throttle, client_of
from postroad.errors import PostroadError

log = logging.getLogger(__name__)

Submit = Callable[[bytes, Envelope], Awaitable[IntakeResult]]

MAX_RECIPIENTS = 100  # RFC 5321 §4.5.3.1.8: the required minimum
NULL_PATH = "<>"
SHUTTING_DOWN = "421 4.3.2 Shutting down, try again"
TOO_MANY_MAILS = "450 4.7.1 Too many mails from you for now, try again"
TOO_MANY_RECIPIENTS = "452 4.5.3 Too many recipients"
NOT_TAKEN = "451 4.3.0 It could not be kept just now, try again"


class InboundHandler:
    """aiosmtpd hooks of one listener. It replies 250 to a mail only after the mail is stored and enqueued."""

    def __init__(
        self,
        *,
        submit: Submit,
        recipient_policy: RecipientPolicy,
        throttle: Throttle,
        submit_ms: int,
        per_recipient: bool,
        metrics: InboundMetrics | None = None,
    ) -> None:
        """Store the dependencies.

        Args:
            submit: Stores and enqueues a mail.
            recipient_policy: Accepts or rejects recipients.
            throttle: Limits the mails of each client.
            submit_ms: Time limit for all submissions of one mail, in milliseconds.
            per_recipient: Whether each recipient gets a reply after the final dot, as in LMTP (RFC 2033 §4.2).
            metrics: Counts replies.
        """
        self._submit = submit
        self._recipient_policy = recipient_policy
        self._throttle = throttle
        self._submit_s = submit_ms / 1000
        self._per_recipient = per_recipient
        self._metrics = metrics
        self._submitting = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self.taken = 0

    async def close(self) -> None:
        """Reject new mail, and wait until all running submissions have their reply."""
        self._closing = True
        await self._idle.wait()

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Transaction, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        # There is no authentication, but aiosmtpd offers AUTH with an empty list of mechanisms under TLS.
        return [line for line in responses if not line[4:].startswith("AUTH")]

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Transaction, address: str, options: list[str]
    ) -> str:
        if self._closing:
            return SHUTTING_DOWN
        if not self._per_recipient and not self._throttle.admits(client_of(session.peer)):
            self._count(InboundReply.THROTTLED)
            return TOO_MANY_MAILS
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Transaction, address: str, options: list[str]
    ) -> str:
        if len(envelope.rcpt_tos) >= MAX_RECIPIENTS:
            return TOO_MANY_RECIPIENTS
        refusal = self._recipient_policy.refusal(address, _mail_from(envelope))
        if refusal is not None:
            # The address may contain a token, which does not belong in a log.
            log.info("%s: recipient rejected: %s", client_of(session.peer) or "a local client", refusal)
            self._count(InboundReply.REFUSED)
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Transaction) -> str:  # noqa: N802
        if self._closing:
            return self._combine([SHUTTING_DOWN] * len(envelope.rcpt_tos))
        content = envelope.original_content or b""
        mail_from = _mail_from(envelope)
        self._submitting += 1
        self._idle.clear()
        try:
            until_s = asyncio.get_running_loop().time() + self._submit_s
            replies = [await self._receive(content, mail_from, address, until_s) for address in envelope.rcpt_tos]
        finally:
            self._submitting -= 1
            if not self._submitting:
                self._idle.set()
        return self._combine(replies)

    async def handle_exception(self, error: Exception) -> str:
        """Log an unexpected error, and ask the client to retry."""
        log.error("a session failed: %s", type(error).__name__, exc_info=error)
        return NOT_TAKEN

    def _count(self, reply: InboundReply) -> None:
        if self._metrics is not None:
            self._metrics.count_reply(reply)

    def _combine(self, replies: list[str]) -> str:
        if self._per_recipient:
            return "\r\n".join(replies)
        # SMTP has one reply for all recipients. If one fails, the client repeats all, and stored mail is recognised by
        # its digest.
        return next((reply for reply in replies if not reply.startswith("250")), replies[0])

    async def _receive(self, content: bytes, mail_from: str, recipient: str, until_s: float) -> str:
        envelope = Envelope(mail_from=mail_from, recipient=recipient, source="lmtp" if self._per_recipient else "smtp")
        try:
            async with asyncio.timeout_at(until_s):
                result = await self._submit(content, envelope)
        except PostroadError as error:
            log.warning("a mail was not accepted: %s", error.message)
            self._count(InboundReply.FAILED)
            return NOT_TAKEN
        except TimeoutError:
            log.warning("a mail was not accepted: storing it took longer than %g s", self._submit_s)
            self._count(InboundReply.FAILED)
            return NOT_TAKEN
        except Exception:
            # In LMTP the other recipients still need their replies.
            log.exception("a mail was not accepted")
            self._count(InboundReply.FAILED)
            return NOT_TAKEN
        self.taken += 1
        self._count(InboundReply.TAKEN if result.new else InboundReply.KNOWN)
        return f"250 2.0.0 Taken as {result.digest[:16]}"


def _mail_from(envelope: Transaction) -> str:
    mail_from: Any = envelope.mail_from
    return "" if mail_from in (None, NULL_PATH) else str(mail_from)
