"""One message: the templates of a step merged with the fields of a touch, as the octets that go on the wire.

Every line is short ASCII ended by CRLF, whatever a merge field holds. ``email.message.EmailMessage`` is the
oracle in the tests; this takes a fortieth of its time (`python -m benchmarks.message`), because all that does not
change from one message to the next is encoded when the step is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cached_property, lru_cache
from hashlib import sha256

import msgspec

from postroad.errors import ConfigError, DataError
from postroad.mail.address import ascii_address, ascii_domain, domain_of
from postroad.mail.body import Entity, File, StaticChunk, Values, canonical_lines, message_entity
from postroad.mail.dkim import Algorithm, DkimSigner, PendingSignature, relaxed_body
from postroad.mail.header import address_field, raw_field, text_field
from postroad.mail.layout import PrecompiledBody, layout_of
from postroad.mail.tag import tag_field
from postroad.mail.template import MessageTemplate, compile_template
from postroad.mail.token import Purpose, TokenSigner
from postroad.settings import REPLY_TOKEN, Service

MAX_SUBJECT = 10_000
"""Characters of a subject. No mail program shows a hundredth of it."""


@dataclass(frozen=True, kw_only=True)
class SenderIdentity:
    """Who a message is from."""

    address: str
    display_name: str
    reply_to: str | None
    postal_address: str
    bounce_domain: str | None

    @property
    def domain(self) -> str:
        return domain_of(self.address)


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message ready for the wire: CRLF line ends, no dot stuffing yet.

    ``return_path`` and ``recipient`` are its envelope: what MAIL FROM and RCPT TO say (RFC 5321 §2.3.1).
    ``unsigned``: the signatures that it waits for.
    """

    return_path: str
    recipient: str
    message_id: str
    content: bytes
    unsigned: tuple[PendingSignature, ...] = ()

    @property
    def slow_to_sign(self) -> bool:
        """Whether signing takes so long that a thread pays."""
        return any(unsigned.key.algorithm is Algorithm.RSA for unsigned in self.unsigned)

    def signed(self, by_rsa: Iterator[bytes] | None = None) -> Message:
        """Return the message with its signatures; one that waits for none is returned as it is.

        ``by_rsa``: signatures by RSA that are made already, which it takes in the order of ``unsigned``.
        """
        if not self.unsigned:
            return self
        fields = [
            unsigned.field_with(next(by_rsa))
            if by_rsa is not None and unsigned.key.algorithm is Algorithm.RSA
            else unsigned.sign()
            for unsigned in self.unsigned
        ]
        return msgspec.structs.replace(self, content=b"".join([*fields, self.content]), unsigned=())


@dataclass(frozen=True, kw_only=True)
class CompiledMessage:
    """The templates of one step, its files and its sender: made once, merged for each touch.

    ``dkim``: what it is signed with; None: it leaves unsigned. ``service``: the mail service that it leaves by.
    """

    sender: SenderIdentity
    subject: MessageTemplate
    text: MessageTemplate
    html: MessageTemplate | None
    entity: Entity
    layout: PrecompiledBody | None
    signer: TokenSigner
    public_url: str
    dkim: DkimSigner | None = None
    service: Service | None = None

    @property
    def fields(self) -> frozenset[str]:
        """Merge fields that the templates name."""
        return frozenset().union(*(part.fields for part in self._templates))

    @property
    def name(self) -> str:
        """Campaign and step, as errors name them."""
        return self.subject.name.removesuffix("subject").removesuffix(", ")

    @property
    def value_fields(self) -> frozenset[str]:
        """Merge fields whose value can make a rendering fail, and not only their absence or length."""
        return frozenset().union(*(part.value_fields for part in self._templates))

    @property
    def _templates(self) -> list[MessageTemplate]:
        return [part for part in (self.subject, self.text, self.html) if part is not None]

    def require_rendering(self, merged: Mapping[str, object]) -> None:
        """Render all templates with the fields of a recipient and ours. Raises DataError where a merge would."""
        self._subject(merged)
        for part in (self.text, self.html):
            if part is not None:
                part.render(merged)

    def reserved_fields(self, touch_id: int, address: str) -> dict[str, str]:
        """Merge fields that are ours to fill in."""
        return {
            "address": address,
            "postal_address": self.sender.postal_address,
            "sender_name": self.sender.display_name,
            "unsubscribe_url": f"{self._unsubscribe_prefix}{self.signer.sign(Purpose.UNSUBSCRIBE, touch_id)}",
        }

    def merge(self, touch_id: int, address: str, fields: Mapping[str, object], now: datetime) -> Message:
        """Return the message of a touch. The same touch has the same Message-ID each time. Raises DataError."""
        reserved = self.reserved_fields(touch_id, address)
        merged = {**fields, **reserved}
        message_id = self.message_id(touch_id)
        header = [
            self._from,
            address_field("To", address),
            text_field("Subject", self._subject(merged)),
            _date_field(int(now.timestamp())),
            raw_field("Message-ID", [message_id]),
            *self._reply_to(touch_id),
            # RFC 8058 §3.1: the first is the address that receivers post to, with the second as the body.
            raw_field("List-Unsubscribe", self._list_unsubscribe(reserved["unsubscribe_url"])),
            b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
            b"MIME-Version: 1.0\r\n",
            *([tag_field(self.service, message_id[1:].partition("@")[0])] if self.service is not None else ()),
            *self.entity.header,
        ]
        body, canonical = self._body(merged)
        unsigned: tuple[PendingSignature, ...] = ()
        if self.dkim is not None:
            unsigned = self.dkim.prepare(header, sha256(relaxed_body(canonical)).digest(), now)
        return Message(
            return_path=self._return_path(touch_id),
            recipient=address,
            message_id=message_id,
            content=b"".join([*header, b"\r\n", body]),
            unsigned=unsigned,
        )

    def _subject(self, merged: Mapping[str, object]) -> str:
        subject = self.subject.render(merged)
        if len(subject) > MAX_SUBJECT:
            raise DataError(f"the subject has more than {MAX_SUBJECT:,} characters", where=self.subject.name)
        return subject

    def message_id(self, touch_id: int) -> str:
        """Under the sender's domain, and the same for every attempt (RFC 5322 §3.6.4)."""
        return f"<{self.signer.sign(Purpose.MESSAGE_ID, touch_id)}@{self.sender.domain}>"

    @cached_property
    def _from(self) -> bytes:
        return address_field("From", self.sender.address, self.sender.display_name)

    def _reply_to(self, touch_id: int) -> tuple[bytes, ...]:
        """With a token, if there is a place for one: mail programs that name no message answer to it all the same."""
        address = self.sender.reply_to
        if not address:
            return ()
        if REPLY_TOKEN in address:
            address = address.replace(REPLY_TOKEN, self.signer.sign(Purpose.REPLY, touch_id))
        return (address_field("Reply-To", address),)

    @cached_property
    def _unsubscribe_prefix(self) -> str:
        return f"{self.public_url.rstrip('/')}/u/"

    def _list_unsubscribe(self, url: str) -> list[str]:
        token = url.rpartition("/")[2]
        domain = self.sender.bounce_domain or self.sender.domain
        return [f"<{url}>,", f"<mailto:unsubscribe+{token}@{domain}>"]

    def _return_path(self, touch_id: int) -> str:
        """Variable envelope return path: a bounce tells by its address alone which touch it is of."""
        if self.sender.bounce_domain is None:
            return self.sender.address
        return f"bounce+{self.signer.sign(Purpose.BOUNCE, touch_id)}@{self.sender.bounce_domain}"

    def _body(self, merged: Mapping[str, object]) -> tuple[bytes, bytes]:
        """The body as it leaves, and its canonical lines if it is going to be signed."""
        try:
            values = self.layout.values(merged) if self.layout is not None else None
            if self.layout is not None and values is not None:
                return self.layout.pattern % values, self.layout.canonical % values if self.dkim is not None else b""
            return self._body_by_lines(Values(merged))
        except KeyError:
            for part in (self.text, self.html):
                if part is not None:
                    part.render(merged)  # It says what is missing, and where.
            raise

    def _body_by_lines(self, values: Values) -> tuple[bytes, bytes]:
        pieces = self.entity.body
        wires = [piece.wire if isinstance(piece, StaticChunk) else piece.encode(values) for piece in pieces]
        return b"".join(wires), canonical_lines(pieces, wires) if self.dkim is not None else b""


@lru_cache(maxsize=8)
def _date_field(second: int) -> bytes:
    # Many messages leave in one second.
    return raw_field("Date", [format_datetime(datetime.fromtimestamp(second, UTC))])


def compile_message(
    *,
    sender: SenderIdentity,
    subject: str,
    text: str,
    html: str | None,
    signer: TokenSigner,
    public_url: str,
    name: str = "",
    files: Sequence[File] = (),
    dkim: DkimSigner | None = None,
    service: Service | None = None,
) -> CompiledMessage:
    """Compile the templates of a step. Raises ConfigError, which names template and line."""
    prefix = f"{name}, " if name else ""
    text_template = compile_template(text, name=f"{prefix}text")
    html_template = compile_template(html, name=f"{prefix}html", html=True) if html is not None else None
    entity = message_entity(text_template, html_template, files)
    return CompiledMessage(
        sender=_in_ascii_domains(sender),
        subject=compile_template(subject, name=f"{prefix}subject"),
        text=text_template,
        html=html_template,
        entity=entity,
        layout=layout_of(entity.body),
        signer=signer,
        public_url=public_url,
        dkim=dkim,
        service=service,
    )


def _in_ascii_domains(sender: SenderIdentity) -> SenderIdentity:
    try:
        return replace(
            sender,
            address=ascii_address(sender.address),
            reply_to=ascii_address(sender.reply_to) if sender.reply_to else None,
            bounce_domain=ascii_domain(sender.bounce_domain) if sender.bounce_domain else None,
        )
    except DataError as error:
        raise ConfigError(error.message, where=f"sender {sender.address}") from None
