"""Parses an inbound mail: DSN, feedback report, receipt, free-text bounce, automatic reply, or other mail.

The first format that matches wins: the report parts of the mail in their order (feedback report, RFC 5965; receipt,
RFC 8098; DSN, RFC 3464), Hotmail's report, the notification of SES, an attached bounce, then challenges, automatic
replies (RFC 3834) and free-text bounces. flufl.bounce comes last, and only finds addresses.
"""

from __future__ import annotations

import logging
from email import message_from_bytes

import msgspec
from flufl.bounce import all_failures

from postroad.bounce.dsn import TYPES as DSN_TYPES
from postroad.bounce.dsn import looks_like_dsn, parse_dsn
from postroad.bounce.esp import ses
from postroad.bounce.feedback import TYPES as FEEDBACK_TYPES
from postroad.bounce.feedback import parse_feedback
from postroad.bounce.heuristics import (
    MAX_RECIPIENTS,
    addresses_in,
    parse_recipients,
    parse_returned_header,
    split_returned,
    status_from_text,
    statuses_from_text,
    text_about,
)
from postroad.bounce.mime import Headers, Part, parse_message, split_header
from postroad.bounce.origin import MailOrigin
from postroad.bounce.patterns import find_phase, first_address, names_local_part, quotes_failure
from postroad.bounce.reply_text import is_auto_reply_subject, is_reply_subject, strip_quoted_text
from postroad.bounce.report import Action, Envelope, MailKind, OriginalMessage, ParsedMail, RecipientStatus
from postroad.bounce.tables import contains_any, signs

_RETURNED_TYPES = (
    "message/rfc822",
    "text/rfc822-headers",
    "text/rfc822-header",
    "message/global",
    "message/global-headers",
    "message/rfc822-headers",
    "message/partial",
)
_DISPOSITION_TYPES = ("message/disposition-notification", "message/global-disposition-notification")
_MAX_FALLBACK_BYTES = 1 << 16
_MAX_TEXT = 1 << 18
NO_ENVELOPE = Envelope()


def parse_mail(raw: bytes, envelope: Envelope = NO_ENVELOPE) -> ParsedMail:
    """Parse one mail. Takes time and memory linear in its size, except for flufl.bounce.

    Mail from untrusted senders is therefore parsed by `readers.MailReader`, in a process with limits.

    Args:
        raw: The mail; anything after MAX_MESSAGE_BYTES is ignored.
        envelope: Its SMTP envelope, if known.

    Returns:
        The parsed mail. Any input yields a result.
    """
    return _MailParser(raw, envelope).parse()


class _MailParser:
    """Parses one mail. Holds what several formats need: parts, text, returned message and origin."""

    def __init__(self, raw: bytes, envelope: Envelope, *, is_inner: bool = False) -> None:
        self.raw = raw
        self.is_inner = is_inner
        self.envelope = envelope
        self.top = parse_message(raw)
        self.parts = self.top.walk()
        self.headers = self.top.headers
        self.text, returned_text = split_returned(self._full_text())
        self.returned = self._parse_returned(returned_text)
        self.origin = MailOrigin(self.top, envelope, self.text)

    def _full_text(self) -> str:
        """Return the text of all parts before the returned message: the plain parts if any has text, else HTML."""
        texts: list[Part] = []
        for part in self.parts:
            if part.parts:
                continue
            if part.content_type in _RETURNED_TYPES:
                break
            if part.content_type in ("text/plain", "text/html", "text") or (part is self.top and not texts):
                texts.append(part)
        plain = [part for part in texts if part.content_type != "text/html" and part.text.strip()]
        return "\n".join(part.text for part in plain or texts)[:_MAX_TEXT]

    def _parse_returned(self, returned_text: str) -> OriginalMessage:
        for part in self.parts:
            if part.content_type in _RETURNED_TYPES:
                fields = _returned_headers(part)
                return OriginalMessage(
                    message_id=fields.get("message-id"),
                    return_path=first_address(fields.get("return-path")) or "",
                    sender=first_address(fields.get("from")) or "",
                    recipient=first_address(fields.get("to")) or "",
                )
        return parse_returned_header(returned_text)

    # -- Formats

    def parse(self) -> ParsedMail:
        for part in self.parts:
            if part.content_type in FEEDBACK_TYPES:
                fields, feedback_type, status = parse_feedback(part.octets, self.returned)
                return self._result(MailKind.FEEDBACK, "RFC 5965", (status,), fields, feedback_type=feedback_type)
            if part.content_type in _DISPOSITION_TYPES:
                return self._parse_disposition(part)
        return (
            self._parse_dsn()
            or self._parse_hotmail()
            or self._parse_notification()
            or self._parse_inner()
            or self._parse_by_signs()
        )

    def _parse_hotmail(self) -> ParsedMail | None:
        """Parse a report of Hotmail's feedback loop, which predates RFC 5965: the message, and a subject or a field."""
        for part in self.parts:
            if part.content_type in _RETURNED_TYPES:
                recipient = first_address(_returned_headers(part).get("x-hmxmroriginalrecipient"))
                by_subject = (
                    self.origin.sender.lower() == "staff@hotmail.com"
                    and self.origin.subject.lower().startswith("complaint about")
                )
                if recipient or by_subject:
                    status = RecipientStatus(address=recipient or self.returned.recipient or None)
                    return self._result(MailKind.FEEDBACK, "Hotmail", (status,), feedback_type="abuse")
        return None

    def _parse_notification(self) -> ParsedMail | None:
        """Parse a notification that Amazon SES sent by mail. Uses the full text, because it is one line of JSON."""
        if not self.origin.sender.endswith("@sns.amazonaws.com"):
            return None
        event = ses.find_notification(self._full_text())
        parsed = ses.parse(event) if event is not None else None
        if parsed is None:
            return None
        self.returned = parsed.returned
        return self._result(parsed.kind, parsed.format, parsed.recipients, feedback_type=parsed.feedback_type)

    def _parse_disposition(self, part: Part) -> ParsedMail:
        """Parse a receipt. Dovecot sends one in place of a DSN: "was automatically rejected"."""
        fields, recipients = parse_dsn(part.text)
        address = recipients[0].address if recipients else self.origin.sender
        if "automatically rejected" in self.text.lower():
            status = status_from_text(address, self.text)
            return self._result(MailKind.BOUNCE, "rejected by RFC 8098", (status,), fields)
        return self._result(MailKind.DISPOSITION, "RFC 8098", (RecipientStatus(address=address or None),), fields)

    def _parse_inner(self) -> ParsedMail | None:
        """Parse a bounce that is attached as a whole, as virus scanners forward it. The attached bounce counts."""
        if self.is_inner:
            return None
        for part in self.parts:
            if part.content_type == "message/rfc822" and b"multipart/report" in part.body[:_MAX_FALLBACK_BYTES].lower():
                inner = _MailParser(part.body[:_MAX_FALLBACK_BYTES], self.envelope, is_inner=True)
                if inner.top.content_type == "multipart/report":
                    report = inner._parse_dsn() or inner._parse_by_signs()
                    addressed_to = dict.fromkeys([*self._addressed_to(), *report.addressed_to])
                    return msgspec.structs.replace(report, addressed_to=tuple(addressed_to))
        return None

    def _parse_dsn(self) -> ParsedMail | None:
        for part in self.parts:
            formal = part.content_type in DSN_TYPES
            if formal or (not part.parts and part.content_type not in _RETURNED_TYPES and looks_like_dsn(part.text)):
                fields, statuses = parse_dsn(part.text)
                named = tuple(self._with_diagnostic(status, len(statuses)) for status in statuses if status.addresses)
                if named and (formal or self.origin.from_server()):
                    return self._result(MailKind.DSN, "RFC 3464", named, fields)
        return None

    def _with_diagnostic(self, status: RecipientStatus, count: int) -> RecipientStatus:
        """Return a status with its phase, and with a diagnostic from the mail's text if the DSN has none."""
        address = status.address or status.original or ""
        if status.diagnostic and (status.reply_code or len(status.diagnostic.split()) >= 3):
            about = self.text if count == 1 else _lines_about(self.text, address)
            return msgspec.structs.replace(status, phase=find_phase(f"{status.diagnostic}\n{about}"))
        about = text_about(self.text, address) if count == 1 else _lines_about(self.text, address)
        from_text = status_from_text(status.address, f"{status.diagnostic} {about}")
        is_vague = status.status is None or status.status.endswith(".0.0")
        is_better = is_vague and from_text.status is not None and _same_class(status.status, from_text.status)
        return msgspec.structs.replace(
            status,
            status=from_text.status if is_better else status.status,
            reply_code=status.reply_code or from_text.reply_code,
            diagnostic=from_text.diagnostic,
            phase=from_text.phase,
            quoted=from_text.quoted,
        )

    def _parse_by_signs(self) -> ParsedMail:
        # A reply repeats our own subject and message. These are no signs.
        origin = self.origin
        is_reply = is_reply_subject(origin.subject)
        subject = "" if is_reply else origin.subject.lower()
        text = " ".join((strip_quoted_text(self.text) if is_reply else self.text).lower().split())
        in_text = {kind: contains_any(text, phrases) for kind, phrases in signs().body.items()}
        in_subject = {kind: contains_any(subject, signs().subject[kind]) for kind in ("bounce", "challenge")}
        if (in_text["challenge"] and not is_reply) or (in_subject["challenge"] and not in_text["bounce"]):
            return self._result(MailKind.CHALLENGE, "signs of a challenge", (self._sender_status(),))
        automatic, server = origin.is_automatic(), origin.from_server()
        bounce = in_subject["bounce"] and in_text["bounce"]
        automatic_subject = is_auto_reply_subject(origin.subject, text)
        if not origin.listed and not bounce and (automatic_subject or (automatic and not server)):
            return self._result(MailKind.AUTO_REPLY, "RFC 3834", (self._sender_status(),))
        # A null return path is no sign here: autoresponders and some mail clients have one too.
        states_failure = in_text["bounce"] or (not is_reply and quotes_failure(self.text))
        if (
            (bounce and not origin.from_person())
            or origin.listed
            or (server and in_subject["bounce"])
            or (states_failure and origin.names_server())
        ):
            return self._parse_free_text(delayed=in_text["delayed"] and not origin.listed)
        if automatic or (server and in_text["auto_reply"]):
            return self._result(MailKind.AUTO_REPLY, "RFC 3834", (self._sender_status(),))
        result = self._result(MailKind.OTHER, "no sign of a bounce", (self._sender_status(),))
        return msgspec.structs.replace(result, personal=origin.is_personal())

    def _parse_free_text(self, *, delayed: bool) -> ParsedMail:
        name, recipients = parse_recipients(self.text, self.origin.listed, self._not_recipients())
        if not recipients and self.returned.recipient:
            status = status_from_text(self.returned.recipient, self.text)
            named = names_local_part(self.text, self.returned.recipient)
            status = msgspec.structs.replace(status, inferred=not named)
            name, recipients = "recipient of the returned message", (status,)
        if not recipients:
            addresses = find_by_flufl(self.raw)[:MAX_RECIPIENTS]
            name, recipients = "flufl.bounce", statuses_from_text(self.text, addresses)
        if not recipients:
            name, recipients = "no address", (status_from_text(None, self.text),)
        if delayed:
            recipients = tuple(msgspec.structs.replace(status, action=Action.DELAYED) for status in recipients)
        return self._result(MailKind.BOUNCE, name, recipients)

    # -- Addresses

    def _sender_status(self) -> RecipientStatus:
        return RecipientStatus(address=self.origin.sender or None)

    def _not_recipients(self) -> set[str]:
        """Return the addresses in a bounce that are not failed recipients: of its sender, its recipient and ours."""
        named = addresses_in(self.headers.all("from", "to", "reply-to", "delivered-to", "return-path"))
        ours = {*named, self.returned.sender, self.returned.return_path, self.envelope.recipient or ""}
        return {address.lower() for address in ours if address and address != self.returned.recipient}

    def _addressed_to(self) -> tuple[str, ...]:
        to = addresses_in(self.headers.all("to", "delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "cc"))
        first = [self.envelope.recipient] if self.envelope.recipient else []
        return tuple(dict.fromkeys([*first, *to]))[:MAX_RECIPIENTS]

    def _result(
        self,
        kind: MailKind,
        name: str,
        recipients: tuple[RecipientStatus, ...],
        fields: dict[str, str] | None = None,
        *,
        feedback_type: str = "",
    ) -> ParsedMail:
        return ParsedMail(
            kind=kind,
            format=name,
            recipients=recipients,
            returned=self.returned,
            addressed_to=self._addressed_to(),
            references=tuple(" ".join(self.headers.all("in-reply-to", "references"))[:4_000].split()[:50]),
            sender=self.origin.sender,
            message_id=self.headers.get("message-id").strip()[:1_000],
            subject=self.origin.subject,
            feedback_type=feedback_type,
            fields=fields or {},
        )


def find_by_flufl(raw: bytes) -> list[str]:
    """Return the failed recipients that flufl.bounce finds in a mail. Not linear in its size."""
    logging.getLogger("flufl.bounce").disabled = True  # It logs exceptions that are handled here.
    try:
        # Its detectors raise on a malformed mail. The time limit of the process raises too.
        temporary, permanent = all_failures(message_from_bytes(raw[:_MAX_FALLBACK_BYTES]))
    except Exception:
        return []
    return sorted(address.decode("utf-8", "replace") for address in {*temporary, *permanent})


def _returned_headers(part: Part) -> Headers:
    return Headers(split_header(part.octets.lstrip(b"\n"))[0])


def _same_class(status: str | None, other: str | None) -> bool:
    return status is None or other is None or status[0] == other[0]


def _lines_about(text: str, address: str) -> str:
    """Return the first line that contains an address, and the three lines after it."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if address and address.lower() in line.lower()), None)
    return "" if start is None else "\n".join(lines[start : start + 4])
