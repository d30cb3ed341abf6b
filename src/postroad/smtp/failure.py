"""How a session fails, and how long it waits before it says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from postroad.errors import Blame
from postroad.settings import TimeoutSettings
from postroad.smtp.reply import Phase, Reply


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds to wait for each whole reply, all its lines included. RFC 5321 §4.5.3.2 gives the least for each.

    ``connect``, for TCP, is ours: a host that takes longer is as good as down. ``greeting`` holds for each step from
    there until the session is open, ``opening`` for all of them together. ``transaction`` holds for the replies to
    MAIL, RCPT and DATA together; the final dot has a time of its own, in which the body is written as well.
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
        """Return those of the settings."""
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
    """The connection could not be made, or was lost. ``unknown``: it died between the final dot and its reply.

    ``late_s``: it was cut off by a deadline, of so many seconds.
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
        """Whether no server has taken anything of the message: any other host may be tried with it."""
        return self.phase in _BEFORE_MAIL


_BEFORE_MAIL = frozenset({Phase.CONNECT, Phase.EHLO, Phase.TLS, Phase.AUTH, Phase.MAIL})


class UnsendableError(Exception):
    """This message can never leave by this session: it is not what SMTP can carry."""

    def __init__(self, reason: str, blame: Blame) -> None:
        super().__init__(reason)
        self.reason = reason
        self.blame = blame
