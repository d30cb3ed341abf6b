"""A sender, a token key, and a function that compiles a test's templates."""

from __future__ import annotations

from datetime import UTC, datetime

import hypothesis
from pydantic import SecretStr

from postroad.mail.message import CompiledMessage, MessageSource, SenderIdentity, compile_message
from postroad.mail.token import TokenSigner

# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

NOW = datetime(2026, 11, 24, 4, 5, 6, tzinfo=UTC)
SIGNER = TokenSigner(SecretStr("a key that is only used in tests"))


def sender(
    *,
    address: str = "news@example.com",
    display_name: str = "Example News",
    reply_to: str | None = "answers@example.com",
    bounce_domain: str | None = "bounces.example.com",
) -> SenderIdentity:
    return SenderIdentity(
        address=address,
        display_name=display_name,
        reply_to=reply_to,
        postal_address="Example Ltd, 1 Example Street, Exampleton",
        bounce_domain=bounce_domain,
    )


def compiled(
    *,
    subject: str = "{{ field }}",
    text: str = "{{ field }}",
    html: str | None = "<p>{{ field }}</p>",
    identity: SenderIdentity | None = None,
    public_url: str = "https://mail.example.com/",
) -> CompiledMessage:
    return compile_message(
        MessageSource(subject=subject, text=text, html=html, name="campaign welcome, step hello"),
        sender=identity or sender(),
        signer=SIGNER,
        public_url=public_url,
    )
