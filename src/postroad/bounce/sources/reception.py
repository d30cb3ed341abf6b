"""What an SMTP or LMTP client is answered: whom it may write to, how much, and when a mail is ours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiosmtpd.smtp import SMTP, Session
from aiosmtpd.smtp import Envelope as Transaction

from postroad.bounce.intake import IntakeResult
from postroad.bounce.report import Envelope
from postroad.bounce.sources.addressees import Addressees
from postroad.bounce.sources.metrics import InboundMetrics, InboundReply
from postroad.bounce.sources.throttle import Throttle, client_of
from postroad.errors import PostroadError

log = logging.getLogger(__name__)

Submit = Callable[[bytes, Envelope], Awaitable[IntakeResult]]

MAX_RECIPIENTS = 100  # RFC 5321 §4.5.3.1.8: no fewer
NULL_PATH = "<>"
SHUTTING_DOWN = "421 4.3.2 Shutting down, try again"
TOO_MANY_MAILS = "450 4.7.1 Too many mails from you for now, try again"
TOO_MANY_RECIPIENTS = "452 4.5.3 Too many recipients"
NOT_TAKEN = "451 4.3.0 It could not be kept just now, try again"


class Reception:
    """The hooks of one listener. A mail is answered with 250 once it is kept and on the queue, and no sooner."""

    def __init__(
        self,
        *,
        submit: Submit,
        addressees: Addressees,
        throttle: Throttle,
        submit_ms: int,
        per_recipient: bool,
        metrics: InboundMetrics | None = None,
    ) -> None:
        """``per_recipient``: LMTP, which has a reply for each of them after the dot (RFC 2033 §4.2)."""
        self._submit = submit
        self._addressees = addressees
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
        """Begin nothing any more, and return once what was being submitted is answered."""
        self._closing = True
        await self._idle.wait()

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Transaction, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        # Nobody logs in here, yet a list of no mechanisms would be shown under TLS.
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
        refusal = self._addressees.refusal(address, _mail_from(envelope))
        if refusal is not None:
            # Not the address itself: tokens do not belong in a log.
            log.info("%s refused a recipient: %s", client_of(session.peer) or "a local client", refusal)
            self._count(InboundReply.REFUSED)
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Transaction) -> str:  # noqa: N802
        if self._closing:
            return self._reply([SHUTTING_DOWN] * len(envelope.rcpt_tos))
        content = envelope.original_content or b""
        mail_from = _mail_from(envelope)
        self._submitting += 1
        self._idle.clear()
        try:
            until_s = asyncio.get_running_loop().time() + self._submit_s
            replies = [await self._take(content, mail_from, recipient, until_s) for recipient in envelope.rcpt_tos]
        finally:
            self._submitting -= 1
            if not self._submitting:
                self._idle.set()
        return self._reply(replies)

    async def handle_exception(self, error: Exception) -> str:
        """Whatever was not thought of is ours to mend, and the client's to try again."""
        log.error("a session failed: %s", type(error).__name__, exc_info=error)
        return NOT_TAKEN

    def _count(self, answer: InboundReply) -> None:
        if self._metrics is not None:
            self._metrics.answered(answer)

    def _reply(self, replies: list[str]) -> str:
        if self._per_recipient:
            return "\r\n".join(replies)
        # One reply for all: unless each is kept it is tried again, and what is kept already is known by its digest.
        return next((reply for reply in replies if not reply.startswith("250")), replies[0])

    async def _take(self, content: bytes, mail_from: str, recipient: str, until_s: float) -> str:
        envelope = Envelope(mail_from=mail_from, recipient=recipient, source="lmtp" if self._per_recipient else "smtp")
        try:
            async with asyncio.timeout_at(until_s):
                submitted = await self._submit(content, envelope)
        except PostroadError as error:
            log.warning("a mail was not taken: %s", error.message)
            self._count(InboundReply.FAILED)
            return NOT_TAKEN
        except TimeoutError:
            log.warning("a mail was not taken: it took longer than %g s to keep it", self._submit_s)
            self._count(InboundReply.FAILED)
            return NOT_TAKEN
        except Exception:
            # In LMTP the other recipients still have replies to come.
            log.exception("a mail was not taken")
            self._count(InboundReply.FAILED)
            return NOT_TAKEN
        self.taken += 1
        self._count(InboundReply.TAKEN if submitted.new else InboundReply.KNOWN)
        return f"250 2.0.0 Taken as {submitted.digest[:16]}"


def _mail_from(envelope: Transaction) -> str:
    mail_from: Any = envelope.mail_from
    return "" if mail_from in (None, NULL_PATH) else str(mail_from)
