"""AUTH (RFC 4954) for one session: checks the command and runs the exchange."""

from __future__ import annotations

import base64
import binascii

from postroad.sandbox import sasl
from postroad.sandbox.config import AuthMechanism
from postroad.sandbox.context import SandboxContext
from postroad.sandbox.phrases import OrdinaryReply


class Authentication:
    """The authentication of one session. ``user``: the authenticated user, if any."""

    def __init__(self, context: SandboxContext) -> None:
        self.user: str | None = None
        self._context = context
        self._exchange: sasl.Exchange | None = None

    @property
    def in_progress(self) -> bool:
        """Whether the next line is a response instead of a command."""
        return self._exchange is not None

    def refusal_of(self, words: list[str]) -> OrdinaryReply | None:
        """Return the reply that rejects AUTH with these arguments, or None."""
        if self.user is not None:
            return OrdinaryReply.ALREADY_AUTHENTICATED
        if len(words) not in (1, 2):
            return OrdinaryReply.AUTH_SYNTAX
        if words[0].upper() not in self._context.config.auth_mechanisms:
            return OrdinaryReply.UNKNOWN_MECHANISM
        if words[0].upper() == AuthMechanism.CRAM_MD5 and len(words) == 2:
            return OrdinaryReply.AUTH_SYNTAX  # RFC 4954 §4: no initial response where the server speaks first
        return None

    def begin(self, words: list[str]) -> bytes | OrdinaryReply:
        """Return the first challenge as a reply, or the reply that ends the exchange at once."""
        initial: bytes | None = None
        if len(words) == 2:
            # RFC 4954 §4: "=" is an empty initial response.
            initial = b"" if words[1] == "=" else _decoded(words[1].encode())
            if initial is None:
                return OrdinaryReply.NOT_BASE64
        config, now_ms = self._context.config, self._context.clock.now_ms()
        nonce = f"<{self._context.rng.getrandbits(64)}.{now_ms}@{config.hostname}>"
        exchange = sasl.exchange(AuthMechanism(words[0].upper()), config.credentials, initial, nonce)
        return self._advance(exchange, None)

    def respond(self, line: bytes) -> bytes | OrdinaryReply:
        """Return the next challenge as a reply, or the reply that ends the exchange."""
        exchange, self._exchange = self._exchange, None
        if exchange is None or line == b"*":
            return OrdinaryReply.AUTH_CANCELLED
        response = _decoded(line)
        return OrdinaryReply.NOT_BASE64 if response is None else self._advance(exchange, response)

    def _advance(self, exchange: sasl.Exchange, response: bytes | None) -> bytes | OrdinaryReply:
        try:
            challenge = next(exchange) if response is None else exchange.send(response)
        except StopIteration as end:
            self.user = end.value
            if self.user is None:
                return OrdinaryReply.BAD_CREDENTIALS
            self._context.counters.authenticated += 1
            return OrdinaryReply.AUTHENTICATED
        self._exchange = exchange
        return b"334 " + base64.b64encode(challenge) + b"\r\n"


def _decoded(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
