"""What peers of the delivery benchmark send is the message that ours is."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import dkim
import pytest
from pydantic import SecretStr

from benchmarks import same_message
from postroad.mail.dkim import Algorithm, DkimKey, generate_key, parse_key
from postroad.mail.message import MessageSource, SenderIdentity, compile_message
from postroad.mail.token import TokenSigner

JOB = same_message.job_of("5")
NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)


def ours() -> bytes:
    sender = SenderIdentity(
        address=same_message.SENDER,
        display_name=same_message.SENDER_NAME,
        reply_to=None,
        postal_address=same_message.POSTAL_ADDRESS,
        bounce_domain=same_message.BOUNCE_DOMAIN,
    )
    compiled = compile_message(
        MessageSource(
            subject=same_message.SUBJECT,
            text=(same_message.MAIL / "text.txt").read_text("utf-8"),
            html=(same_message.MAIL / "html.html").read_text("utf-8"),
        ),
        sender=sender,
        signer=TokenSigner(SecretStr("a key of the tests alone")),
        public_url=same_message.PUBLIC_URL,
    )
    return compiled.merge(JOB.touch, JOB.address, JOB.fields, NOW).content


def parsed(content: bytes) -> EmailMessage:
    message = message_from_bytes(content, policy=SMTP)
    assert isinstance(message, EmailMessage)
    return message


def texts(message: EmailMessage) -> list[str]:
    """What a reader sees. The token in the link is ours alone, and so are spaces that HTML does without."""
    seen = [part.get_content() for part in message.iter_parts() if isinstance(part, EmailMessage)]
    return ["".join(re.sub(r"/u/[\w-]+", "/u/", text).split()) for text in seen]


def test_a_peer_sends_the_same_message_as_ours() -> None:
    written = same_message.Writer(None).write(JOB)
    theirs, own = parsed(written.content), parsed(ours())
    assert written.recipient == JOB.address
    for header in ("From", "To", "Subject", "List-Unsubscribe-Post", "MIME-Version"):
        assert theirs[header] == own[header], header
    assert theirs.get_content_type() == own.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in theirs.iter_parts()] == ["text/plain", "text/html"]
    assert [part["Content-Transfer-Encoding"] for part in theirs.iter_parts()] == ["quoted-printable"] * 2
    assert texts(theirs) == texts(own)
    assert {"List-Unsubscribe", "Message-ID", "Date"} <= set(theirs.keys()) & set(own.keys())
    assert abs(len(written.content) - len(ours())) < 400


def test_a_peer_signs_it_so_that_it_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = generate_key(Algorithm.RSA)
    (tmp_path / "key.pem").write_bytes(pem)
    monkeypatch.setenv("DKIM_KEY", str(tmp_path / "key.pem"))
    content = same_message.Writer.of_environment().write(JOB).content
    key = DkimKey(domain="sender.example", selector=same_message.SELECTOR, private_key=parse_key(pem, where="test"))

    def record(name: bytes, timeout: int = 5) -> bytes:
        return key.record.encode() if name == b"bench._domainkey.sender.example." else b""

    assert dkim.verify(content, dnsfunc=record)
    assert not dkim.verify(content.replace(b"Hello", b"Hullo"), dnsfunc=record)
