"""What a server said of a message: the words, the codes, and who said it in which phase."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from postroad.smtp.reply import Phase


class Speaker(StrEnum):
    """Who says it."""

    RECEIVER = "receiver"  # a mail host of the recipient's domain
    RELAY = "relay"  # the submission host that we hand mail to


class Statement(Struct, frozen=True, kw_only=True):
    """What was said, and where.

    Attributes:
        text: The words, without the codes.
        code: Reply code (RFC 5321 §4.2). None: not known.
        status: Enhanced code (RFC 3463). None: not known.
        phase: What was answered. None: a report without an SMTP dialogue.
        speaker: Who said it.
        provider: Name of the mailbox provider, where it is a known one.
        recipient: The address that the message was for, as far as it is known.
        senders: Addresses that the message was sent from: From and return path, as far as they are known.
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
        """Whether the server may take the message later. The reply code counts before the enhanced code."""
        if self.code is not None and self.code >= 400:
            return self.code < 500
        return (self.status or "5")[0] == "4"
