"""State that all sessions of one sandbox share."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import msgspec

from postroad.clock import Clock
from postroad.sandbox.config import Extension, SandboxConfig
from postroad.sandbox.personas import PersonaSet
from postroad.sandbox.phrases import OrdinaryReply, encoded_replies
from postroad.sandbox.rulebook import RuleBook, RuleVerdict, SessionView
from postroad.sandbox.rules import RECIPIENT_KNOWN, RulePhase
from postroad.sandbox.storage import MessageStore


class Counters(msgspec.Struct):
    """Counts since the start of the sandbox."""

    connections: int = 0
    open_connections: int = 0
    secured: int = 0
    """Successful TLS handshakes, implicit or by STARTTLS."""
    authenticated: int = 0
    accepted: int = 0
    """Messages stored and answered with 250, even if the client is gone before it reads the reply."""
    accepted_recipients: int = 0
    kept_unsaid: int = 0
    """Messages stored because of a fault at the dot, whose client got another reply or no reply."""
    refused: dict[RulePhase, int] = msgspec.field(default_factory=lambda: dict.fromkeys(RulePhase, 0))
    """4xx and 5xx replies by phase, for any reason."""
    dropped: int = 0
    """Connections that a fault dropped."""
    timed_out: int = 0


@dataclass(slots=True)
class SandboxContext:
    """The parts of a running sandbox. ``rules`` may be replaced at any time."""

    config: SandboxConfig
    clock: Clock
    rng: Random
    storage: MessageStore
    rules: RuleBook
    personas: PersonaSet | None
    tls: ssl.SSLContext | None
    counters: Counters = field(default_factory=Counters)
    phrases: dict[OrdinaryReply, bytes] = field(init=False)
    offered: frozenset[Extension] = field(init=False)

    def __post_init__(self) -> None:
        self.offered = frozenset(extension for extension in Extension if self.config.offers(extension))
        self.phrases = encoded_replies(enhanced=Extension.ENHANCEDSTATUSCODES in self.offered)

    def decide(
        self, phase: RulePhase, session: SessionView, recipients: Sequence[str] = (), content: bytes = b""
    ) -> RuleVerdict | None:
        """Return the fault to apply: of a rule, else of a recipient's tag, else of a persona, else None."""
        verdict = self.rules.decide(phase, session, recipients, content)
        if verdict is None and self.personas is not None and phase in RECIPIENT_KNOWN:
            return self.personas.decide(phase, session, recipients, content)
        return verdict

    def forget(self, connection: int) -> None:
        """Delete the state of a closed connection."""
        self.rules.forget(connection)
        if self.personas is not None:
            self.personas.forget(connection)
