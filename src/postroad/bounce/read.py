"""Read a mail that came back: octets in, a report out, whatever the octets are.

The most formal reading that fits wins: feedback report (RFC 5965), receipt (RFC 8098), DSN (RFC 3464), then challenges,
automatic replies (RFC 3834) and bounces in a server's own words. flufl.bounce comes last, and only finds the address.
"""

from __future__ import annotations

from email import message_from_bytes

import msgspec
from flufl.bounce import all_failures

from postroad.bounce.dsn import TYPES as DSN_TYPES
from postroad.bounce.dsn import looks_like_dsn, read_dsn
from postroad.bounce.feedback import TYPES as FEEDBACK_TYPES
from postroad.bounce.feedback import read_feedback
from postroad.bounce.mime import Headers, Part, decode_words, read_message, split_header
from postroad.bounce.plain import addresses_in, read_plain, read_returned, reported_of, said_of, split_returned
from postroad.bounce.report import Action, Envelope, Kind, Report, Reported, Returned
from postroad.bounce.tables import signs
from postroad.bounce.words import answers_rcpt, first_address

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
NO_ENVELOPE = Envelope()


def read_mail(raw: bytes, envelope: Envelope = NO_ENVELOPE) -> Report:
    """Read one mail. It raises nothing, and takes time and memory within the bounds of `mime` and `plain`."""
    return _Mail(raw, envelope).report()


class _Mail:
    """One mail on its way to being a report: what several readings want to know of it."""

    def __init__(self, raw: bytes, envelope: Envelope, *, is_inner: bool = False) -> None:
        self.raw = raw
        self.is_inner = is_inner
        self.envelope = envelope
        self.top = read_message(raw)
        self.parts = self.top.walk()
        self.headers = self.top.headers
        self.subject = decode_words(self.headers.get("subject"))[:500]
        self.sender = first_address(decode_words(self.headers.get("from"))) or ""
        self.words, cut = split_returned(self._text())
        self.returned = self._returned(cut)

    def _text(self) -> str:
        """What a person would read first: every text part before the returned message, plain ones if there are any."""
        texts: list[Part] = []
        for part in self.parts:
            if part.parts:
                continue
            if part.content_type in _RETURNED_TYPES:
                break
            if part.content_type in ("text/plain", "text/html", "text") or (part is self.top and not texts):
                texts.append(part)
        plain = [part for part in texts if part.content_type != "text/html" and part.text.strip()]
        return "\n".join(part.text for part in plain or texts)

    def _returned(self, cut: str) -> Returned:
        for part in self.parts:
            if part.content_type in _RETURNED_TYPES:
                header = part.octets.lstrip(b"\n")
                fields = Headers(split_header(header)[0])
                return Returned(
                    message_id=fields.get("message-id"),
                    return_path=first_address(fields.get("return-path")) or "",
                    sender=first_address(fields.get("from")) or "",
                    recipient=first_address(fields.get("to")) or "",
                )
        return read_returned(cut)

    # -- what it is

    def report(self) -> Report:
        for part in self.parts:
            if part.content_type in FEEDBACK_TYPES:
                fields, kind, reported = read_feedback(part.octets, self.returned)
                return self._made(Kind.FEEDBACK, "RFC 5965", (reported,), fields, feedback_type=kind)
            if part.content_type in _DISPOSITION_TYPES:
                return self._disposition(part)
        return self._dsn() or self._inner() or self._by_signs()

    def _disposition(self, part: Part) -> Report:
        """A receipt, unless it is what Dovecot sends where others send a DSN: "was automatically rejected"."""
        fields, recipients = read_dsn(part.text)
        address = recipients[0].address if recipients else self.sender
        if "automatically rejected" in self.words.lower():
            return self._made(Kind.BOUNCE, "rejected by RFC 8098", (reported_of(address, self.words),), fields)
        return self._made(Kind.DISPOSITION, "RFC 8098", (Reported(address=address or None),), fields)

    def _inner(self) -> Report | None:
        """A bounce that somebody sent on as a whole, as virus scanners do: the one within counts."""
        if self.is_inner:
            return None
        for part in self.parts:
            if part.content_type == "message/rfc822" and b"multipart/report" in part.body[:_MAX_FALLBACK_BYTES].lower():
                inner = _Mail(part.body[:_MAX_FALLBACK_BYTES], self.envelope, is_inner=True)
                if inner.top.content_type == "multipart/report" and (report := inner._dsn() or inner._by_signs()):
                    to = dict.fromkeys([*self._addressed_to(), *report.addressed_to])
                    return msgspec.structs.replace(report, addressed_to=tuple(to)) if report.recipients else None
        return None

    def _dsn(self) -> Report | None:
        for part in self.parts:
            formal = part.content_type in DSN_TYPES
            if formal or (not part.parts and part.content_type not in _RETURNED_TYPES and looks_like_dsn(part.text)):
                fields, recipients = read_dsn(part.text)
                known = tuple(self._explained(one, len(recipients)) for one in recipients if one.addresses)
                if known and (formal or self._from_server()):
                    return self._made(Kind.DSN, "RFC 3464", known, fields)
        return None

    def _explained(self, one: Reported, count: int) -> Reported:
        """A recipient with no words of its own gets those that the mail's text has for it."""
        if one.diagnostic and (one.reply_code or not _telling_nothing(one.diagnostic)):
            about = self.words if count == 1 else _lines_about(self.words, one.address or one.original or "")
            return msgspec.structs.replace(one, at_rcpt=answers_rcpt(f"{one.diagnostic}\n{about}"))
        addresses = [one.address or one.original or ""] + [""] * (count > 1)
        said = said_of(self.words, addresses[0], addresses) if count == 1 else _lines_about(self.words, addresses[0])
        from_text = reported_of(one.address, f"{one.diagnostic} {said}")
        vague = one.status is None or one.status.endswith(".0.0")
        return Reported(
            address=one.address,
            original=one.original,
            action=one.action,
            status=(from_text.status or one.status) if vague and _same_class(one.status, from_text.status) else one.status,
            reply_code=one.reply_code or from_text.reply_code,
            diagnostic=from_text.diagnostic,
            at_rcpt=from_text.at_rcpt,
            remote_mta=one.remote_mta,
            fields=one.fields,
        )

    def _by_signs(self) -> Report:
        subject, words = self.subject.lower(), " ".join(self.words.lower().split())
        told = {kind: _any(phrases, words) for kind, phrases in signs().body.items()}
        titled = {kind: _any(phrases, subject) for kind, phrases in signs().subject.items()}
        if told["challenge"] or (titled["challenge"] and not told["bounce"]):
            return self._made(Kind.CHALLENGE, "signs of a challenge", (self._of_sender(),))
        automatic = self._automatic()
        if (titled["auto_reply"] and not self._listed()) or (
            automatic and not self._from_server() and not (titled["bounce"] and told["bounce"])
        ):
            return self._made(Kind.AUTO_REPLY, "RFC 3834", (self._of_sender(),))
        server = self._from_server()
        if self._listed() or (server and (titled["bounce"] or told["bounce"])) or (titled["bounce"] and told["bounce"]):
            return self._plain(delayed=told["delayed"] and not self._listed())
        if automatic or (server and told["auto_reply"]):
            return self._made(Kind.AUTO_REPLY, "RFC 3834", (self._of_sender(),))
        return self._made(Kind.OTHER, "no sign of a bounce", (self._of_sender(),))

    def _plain(self, *, delayed: bool) -> Report:
        name, recipients = read_plain(self.words, self._listed(), self._not_recipients())
        if not recipients and self.returned.recipient:
            name, recipients = "recipient of the returned message", (reported_of(self.returned.recipient, self.words),)
        if not recipients:
            found = self._by_flufl()
            name, recipients = "flufl.bounce", tuple(reported_of(one, said_of(self.words, one, found)) for one in found)
        if not recipients:
            name, recipients = "no address", (reported_of(None, self.words),)
        if delayed:
            recipients = tuple(_delayed(one) for one in recipients)
        return self._made(Kind.BOUNCE, name, recipients)

    def _by_flufl(self) -> list[str]:
        try:
            # One of its detectors counts on fields that a broken mail lacks, and raises.
            temporary, permanent = all_failures(message_from_bytes(self.raw[:_MAX_FALLBACK_BYTES]))
            return sorted(address.decode("utf-8", "replace") for address in {*temporary, *permanent})
        except Exception:
            return []

    # -- signs

    def _listed(self) -> list[str]:
        return addresses_in(self.headers.all("x-failed-recipients"))

    def _from_server(self) -> bool:
        """Whether a server sent it: it says so, or nobody could answer it."""
        if self.envelope.mail_from == "" or self.headers.get("return-path").strip() == "<>":
            return True
        if self.top.content_type == "multipart/report" or self._listed():
            return True
        given = decode_words(self.headers.get("from")).lower()
        local = self.sender.lower().partition("@")[0] or given.strip(" <>\"'")
        if local == "" or local in signs().daemons or local.startswith("mailer-daemon"):
            return True
        return _any(signs().daemon_names, given)

    def _automatic(self) -> bool:
        """RFC 3834 §5, and what was the custom before it."""
        headers = self.headers
        submitted = headers.get("auto-submitted").lower().partition(";")[0].strip()
        if submitted and submitted != "no":
            return True
        if headers.get("precedence").lower().strip() in ("auto_reply", "auto-reply"):
            return True
        named = ("x-autoreply", "x-autorespond", "x-autoresponder", "x-auto-reply-from", "x-mail-autoreply", "x-autogenerated")
        return any(name in headers for name in named)

    def _of_sender(self) -> Reported:
        return Reported(address=self.sender or None)

    def _not_recipients(self) -> set[str]:
        """Whose addresses stand in a bounce without having failed: its own sender and receiver, and ours."""
        named = addresses_in(self.headers.all("from", "to", "reply-to", "delivered-to", "return-path"))
        ours = {*named, self.returned.sender, self.returned.return_path, self.envelope.recipient or ""}
        return {address.lower() for address in ours if address and address != self.returned.recipient}

    def _addressed_to(self) -> tuple[str, ...]:
        to = addresses_in(self.headers.all("to", "delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "cc"))
        first = [self.envelope.recipient] if self.envelope.recipient else []
        return tuple(dict.fromkeys([*first, *to]))

    def _made(
        self,
        kind: Kind,
        name: str,
        recipients: tuple[Reported, ...],
        fields: dict[str, str] | None = None,
        *,
        feedback_type: str = "",
    ) -> Report:
        return Report(
            kind=kind,
            format=name,
            recipients=recipients,
            returned=self.returned,
            addressed_to=self._addressed_to(),
            references=tuple(" ".join(self.headers.all("in-reply-to", "references"))[:4_000].split()[:50]),
            sender=self.sender,
            subject=self.subject,
            feedback_type=feedback_type,
            fields=fields or {},
        )


def _any(phrases: tuple[str, ...], text: str) -> bool:
    return any(phrase in text for phrase in phrases)


def _telling_nothing(diagnostic: str) -> bool:
    return len(diagnostic.split()) < 3


def _same_class(status: str | None, other: str | None) -> bool:
    return status is None or other is None or status[0] == other[0]


def _lines_about(words: str, address: str) -> str:
    lines = words.splitlines()
    at = next((number for number, line in enumerate(lines) if address and address.lower() in line.lower()), None)
    return "" if at is None else "\n".join(lines[at : at + 4])


def _delayed(one: Reported) -> Reported:
    return Reported(
        address=one.address,
        action=Action.DELAYED,
        status=one.status,
        reply_code=one.reply_code,
        diagnostic=one.diagnostic,
    )
