"""Statement of a server about a message: text, codes, SMTP phase and speaker."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from postroad.smtp.reply import Phase


class Speaker(StrEnum):
    """Server that makes a statement."""

    RECEIVER = "receiver"  # a mail host of the recipient's domain
    RELAY = "relay"  # the submission server that we send by


class Statement(Struct, frozen=True, kw_only=True):
    """One statement.

    Attributes:
        text: Text as reported. That of a bounce may begin with the codes.
        code: Reply code (RFC 5321 §4.2). None: unknown.
        status: Enhanced status code (RFC 3463). None: unknown.
        phase: SMTP command that the reply answers. None: a report without an SMTP session.
        speaker: Server that makes the statement.
        provider: Name of the mailbox provider; empty if it is unknown.
        recipient: Recipient of the message, if known.
        senders: From address and return path of the message, if known.
    """

    text: str
    code: int | None = None
    status: str | None = None
    phase: Phase | None = None
    speaker: Speaker = Speaker.RECEIVER
    provider: str = ""
    recipient: str = ""
    senders: tuple[str, ...] = ()

    @property
    def is_temporary(self) -> bool:
        """Whether the server may accept the message later. The reply code has priority over the enhanced code."""
        if self.code is not None and self.code >= 400:
            return self.code < 500
        return (self.status or "5")[0] == "4"
