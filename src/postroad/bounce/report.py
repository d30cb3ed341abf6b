"""Types of a parsed mail: its kind, its recipients and their status. Classification is in `classify`."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Any

from msgspec import Struct

from postroad.smtp.reply import Phase
from postroad.store.text import storable_text

MAX_TEXT = 4_000
"""Maximum characters of each text of a report."""
MAX_FIELDS = 200
"""Maximum fields of a table of a report."""


class MailKind(StrEnum):
    """Kind of a mail."""

    DSN = "dsn"  # delivery status notification, RFC 3464
    BOUNCE = "bounce"  # the same as free text
    FEEDBACK = "feedback"  # abuse report, RFC 5965
    DISPOSITION = "disposition"  # read receipt, RFC 8098
    AUTO_REPLY = "auto-reply"  # RFC 3834
    REPLY = "reply"  # written by a person
    CHALLENGE = "challenge"  # "prove that you are a person, and your mail is delivered"
    OTHER = "other"
    UNREADABLE = "unreadable"  # parsing exceeded a limit


class Action(StrEnum):
    """Result of the delivery to one recipient (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


class Envelope(Struct, frozen=True, kw_only=True):
    """SMTP envelope of a received mail, and the source that received it.

    ``mail_from`` None: the return path is unknown. Empty: the null return path.
    """

    mail_from: str | None = None
    recipient: str | None = None
    source: str = "file"


class RecipientStatus(Struct, frozen=True, kw_only=True):
    """Delivery status of one recipient.

    Attributes:
        address: Final recipient, to which the delivery was attempted.
        original: Address that the message was sent to, before any forwarding or expansion.
        action: Result of the delivery.
        status: Enhanced status code (RFC 3463).
        reply_code: SMTP reply code (RFC 5321 §4.2).
        diagnostic: Text of the server that rejected the message.
        quoted: Reply of the remote host within ``diagnostic``; empty if the local server quotes none.
        phase: SMTP command that the reply answers; None if no SMTP session is reported.
        remote_mta: Host that rejected the message.
        fields: Every field of the recipient's block in a DSN; names in lower case.
        inferred: Whether the report names no address, so that ``address`` is that of the returned message.
    """

    address: str | None
    original: str | None = None
    action: Action | None = None
    status: str | None = None
    reply_code: int | None = None
    diagnostic: str = ""
    quoted: str = ""
    phase: Phase | None = None
    remote_mta: str | None = None
    fields: dict[str, str] = {}
    inferred: bool = False

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(address for address in (self.original, self.address) if address)


class OriginalMessage(Struct, frozen=True, kw_only=True):
    """Header of the sent message, as the report returns it. ``tag``: the tag that an ESP stored with the message."""

    message_id: str = ""
    tag: str = ""
    return_path: str = ""
    sender: str = ""
    recipient: str = ""


class ParsedMail(Struct, frozen=True, kw_only=True):
    """One parsed mail.

    Attributes:
        kind: Kind of the mail.
        format: Name of the rule that recognized the mail.
        recipients: Status of each recipient that the mail reports on.
        returned: Header of the message that the mail returns.
        addressed_to: Recipients of the mail itself: of its envelope, then of its header.
        references: Message-IDs of In-Reply-To and References.
        sender: Address of the From field.
        subject: Subject of the mail.
        message_id: Message-ID of the mail itself.
        personal: Whether the mail shows no sign of a program as its author.
        carries_reports: Whether parts of the mail look like DMARC or TLS reports.
        feedback_type: Type of a feedback report (RFC 5965 §3.1).
        fields: Fields of a DSN or feedback report on the whole message; names in lower case.
    """

    kind: MailKind
    format: str
    recipients: tuple[RecipientStatus, ...] = ()
    returned: OriginalMessage = OriginalMessage()
    addressed_to: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    sender: str = ""
    subject: str = ""
    message_id: str = ""
    personal: bool = False
    carries_reports: bool = False
    feedback_type: str = ""
    fields: dict[str, str] = {}


def storable(report: ParsedMail) -> ParsedMail:
    """Return a report whose texts a database can store, each cut to MAX_TEXT characters."""
    clean: ParsedMail = _storable(report)
    return clean


def _storable(value: Any) -> Any:
    match value:
        case Enum():
            return value
        case str():
            return storable_text(value, MAX_TEXT)
        case tuple():
            return tuple(map(_storable, value))
        case dict():
            return {_storable(name): _storable(text) for name, text in list(value.items())[:MAX_FIELDS]}
        case Struct():
            return type(value)(**{name: _storable(getattr(value, name)) for name in value.__struct_fields__})
        case _:
            return value
