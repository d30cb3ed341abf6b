"""What a mail that came back says, as it was read. Nothing is judged here."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Any

from msgspec import Struct

from postroad.smtp.reply import Phase
from postroad.store.text import storable_text

MAX_TEXT = 4_000
"""Characters of any text of a report."""
MAX_FIELDS = 200


class MailKind(StrEnum):
    """What sort of mail it is."""

    DSN = "dsn"  # delivery status notification, RFC 3464
    BOUNCE = "bounce"  # the same in a server's own words
    FEEDBACK = "feedback"  # abuse report, RFC 5965
    DISPOSITION = "disposition"  # read receipt, RFC 8098
    AUTO_REPLY = "auto-reply"  # RFC 3834
    REPLY = "reply"  # a person answers
    CHALLENGE = "challenge"  # "prove that you are a person, and your mail is delivered"
    OTHER = "other"
    UNREADABLE = "unreadable"  # reading it passed a limit


class Action(StrEnum):
    """What became of the mail for one recipient (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


class Envelope(Struct, frozen=True, kw_only=True):
    """How a mail came in: who it says sent it (None: not known, empty: the null path), to whom, and by which source."""

    mail_from: str | None = None
    recipient: str | None = None
    source: str = "file"


class RecipientStatus(Struct, frozen=True, kw_only=True):
    """What is said of one recipient. ``address`` is where it failed, ``original`` what we had written to.

    ``diagnostic``: the words of whoever refused it. ``quoted``: the reply of the remote host within it, where the local
    server quotes one. ``phase``: what was answered; None where no SMTP dialogue is reported. ``fields``: every field of
    a DSN's block, names in lower case. ``inferred``: the report names no address, and this one is that of the returned
    message.
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
    """What came back of the message that we had sent. ``tag``: what we had a mail service note beside it."""

    message_id: str = ""
    tag: str = ""
    return_path: str = ""
    sender: str = ""
    recipient: str = ""


class ParsedMail(Struct, frozen=True, kw_only=True):
    """One mail, read. ``format`` names the rule that read it, ``fields`` are those of the whole message.

    ``personal``: nothing in it says that a program wrote it. ``message_id``: its own. ``carries_reports``: parts of it
    look like reports of a receiver.
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
    """Return a report whose texts a database can hold, each of at most MAX_TEXT characters."""
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
