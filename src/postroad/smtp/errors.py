"""Timeouts of a session, and the errors that it raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from postroad.errors import Blame
from postroad.settings import TimeoutSettings
from postroad.smtp.reply import Phase, Reply


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Timeouts in seconds, each for a whole reply with all its lines. RFC 5321 §4.5.3.2 gives the minima.

    Attributes:
        connect: TCP connect. Not in the RFC: a host that takes longer counts as down.
        greeting: Each step from the greeting until the session is open.
        mail: The reply to MAIL.
        rcpt: The reply to RCPT.
        data: The reply to DATA.
        dot: Writing the body and the reply to the final dot.
        opening: All steps of opening a session together.
        transaction: The replies to MAIL, RCPT and DATA together.
    """

    connect: float = 30
    greeting: float = 300
    mail: float = 300
    rcpt: float = 300
    data: float = 120
    dot: float = 600
    opening: float = 600
    transaction: float = 600

    @classmethod
    def of(cls, settings: TimeoutSettings) -> Self:
        """Convert the settings, which are in milliseconds."""
        return cls(
            connect=settings.connect_ms / 1000,
            greeting=settings.greeting_ms / 1000,
            mail=settings.mail_ms / 1000,
            rcpt=settings.rcpt_ms / 1000,
            data=settings.data_ms / 1000,
            dot=settings.dot_ms / 1000,
            opening=settings.opening_ms / 1000,
            transaction=settings.transaction_ms / 1000,
        )


class TransportError(Exception):
    """The connection could not be opened, or was lost.

    Attributes:
        phase: The phase in which it failed.
        reason: What failed, in words.
        unknown: Whether the connection was lost between the final dot and its reply.
        reply: The server's reply, if one was the cause.
        late_s: The deadline that expired, in seconds. None if it failed for another reason.
    """

    def __init__(
        self,
        phase: Phase,
        reason: str,
        *,
        unknown: bool = False,
        reply: Reply | None = None,
        late_s: float | None = None,
    ) -> None:
        super().__init__(f"{phase}: {reason}")
        self.phase = phase
        self.reason = reason
        self.unknown = unknown
        self.reply = reply
        self.late_s = late_s

    @property
    def before_mail(self) -> bool:
        """Whether no server has accepted any part of the message, so that another host may be tried."""
        return self.phase in _BEFORE_MAIL


_BEFORE_MAIL = frozenset({Phase.CONNECT, Phase.EHLO, Phase.TLS, Phase.AUTH, Phase.MAIL})


class UnsendableError(Exception):
    """SMTP, or this server, cannot carry this message. A retry on the same session fails again."""

    def __init__(self, reason: str, blame: Blame) -> None:
        super().__init__(reason)
        self.reason = reason
        self.blame = blame
