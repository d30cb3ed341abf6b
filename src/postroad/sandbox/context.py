"""What all sessions of one sandbox share."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import msgspec

from postroad.clock import Clock
from postroad.sandbox.config import Extension, SandboxConfig
from postroad.sandbox.mailroom import MessageStore
from postroad.sandbox.personas import Company
from postroad.sandbox.phrases import OrdinaryReply, compiled
from postroad.sandbox.rulebook import RuleBook, RuleVerdict, SessionView
from postroad.sandbox.rules import RECIPIENT_KNOWN, RulePhase


class Counters(msgspec.Struct):
    """What has happened since the start."""

    connections: int = 0
    open_connections: int = 0
    secured: int = 0
    """TLS handshakes that succeeded, of either kind."""
    authenticated: int = 0
    accepted: int = 0
    """Messages kept and answered with 250, or meant to be: a client may be gone before it reads it."""
    accepted_recipients: int = 0
    kept_unsaid: int = 0
    """Messages kept by a fault at the dot, whose client was told otherwise or nothing."""
    refused: dict[RulePhase, int] = msgspec.field(default_factory=lambda: dict.fromkeys(RulePhase, 0))
    """4xx and 5xx replies by phase, for whatever reason."""
    dropped: int = 0
    """Connections cut by a fault."""
    timed_out: int = 0


@dataclass(slots=True)
class SandboxContext:
    """The parts of a running sandbox. ``rules`` may be replaced at any moment."""

    config: SandboxConfig
    clock: Clock
    rng: Random
    mailroom: MessageStore
    rules: RuleBook
    company: Company | None
    tls: ssl.SSLContext | None
    counters: Counters = field(default_factory=Counters)
    phrases: dict[OrdinaryReply, bytes] = field(init=False)
    offered: frozenset[Extension] = field(init=False)

    def __post_init__(self) -> None:
        self.offered = frozenset(extension for extension in Extension if self.config.offers(extension))
        self.phrases = compiled(enhanced=Extension.ENHANCEDSTATUSCODES in self.offered)

    def decide(
        self, phase: RulePhase, scene: SessionView, recipients: Sequence[str] = (), content: bytes = b""
    ) -> RuleVerdict | None:
        """Return the fault that happens now: by a rule, by a recipient's tag, by a persona; or None."""
        verdict = self.rules.decide(phase, scene, recipients, content)
        if verdict is None and self.company is not None and phase in RECIPIENT_KNOWN:
            return self.company.decide(phase, scene, recipients, content)
        return verdict

    def forget(self, connection: int) -> None:
        """Let go of what was remembered about a connection that is gone."""
        self.rules.forget(connection)
        if self.company is not None:
            self.company.forget(connection)
