"""What the sandbox does wrong, as data: a rule says when, a fault says what.

Rules are read in order and the first that applies wins; addresses may carry a fault of their own behind
a ``+`` (see :mod:`postroad.sandbox.addresses`), which is looked at after the rules.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from postroad.sandbox.replies import reply_of


class RulePhase(StrEnum):
    """The moment of a session at which a fault happens, and by which refusals are counted."""

    CONNECT = "connect"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"
    QUIT = "quit"


#: Phases at which a sender, or at least one recipient, is known.
SENDER_KNOWN = frozenset({RulePhase.MAIL, RulePhase.RCPT, RulePhase.DATA, RulePhase.DOT})
RECIPIENT_KNOWN = frozenset({RulePhase.RCPT, RulePhase.DATA, RulePhase.DOT})


class ConnectionEnding(StrEnum):
    """What becomes of the connection once the fault has happened."""

    STAY = "stay"
    CLOSE = "close"
    """The reply is sent, then the connection is closed. A 421 always ends so (RFC 5321 §3.8)."""
    DROP = "drop"
    """Closed instead of the reply; replies to earlier commands still arrive."""
    RESET = "reset"
    """Like DROP, by a TCP reset: the client may lose earlier replies too."""
    HANG = "hang"
    """No reply, and the connection stays open until the client gives up."""


class RuleScope(StrEnum):
    """Who shares one rate."""

    ALL = "all"
    CONNECTION = "connection"
    IP = "ip"
    SENDER = "sender"
    SENDER_DOMAIN = "sender-domain"
    """Unlike SENDER it knows senders again whose return path differs for each message."""
    DOMAIN = "domain"
    RECIPIENT = "recipient"


class MissingAuth(StrEnum):
    """What a message can be seen to lack without asking the DNS."""

    SIGNATURE = "signature"
    """A DKIM-Signature header (RFC 6376 §3.5). Whether one verifies is not looked at."""
    ALIGNMENT = "alignment"
    """A signature or a return path of a domain that is that of From, or above or below it (RFC 7489 §3.1)."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens in place of, or on top of, the ordinary reply."""

    reply: str = ""
    """A name from ``replies.toml`` (``gmail-unusual-rate``) or a reply (``550 5.1.1 No such user``).
    Empty: the ordinary one."""
    delay_ms: int = 0
    """How long the reply (or the ending) is held back."""
    byte_delay_ms: int = 0
    """The reply trickles: one octet, then this long nothing."""
    ending: ConnectionEnding = ConnectionEnding.STAY
    keep: bool = False
    """At the final dot: the message is kept and in the ledger although the client is not told so."""

    def __post_init__(self) -> None:
        if self.reply:
            reply_of(self.reply)
        if self.delay_ms < 0 or self.byte_delay_ms < 0:
            raise ValueError("a delay is not negative")


class RuleRate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many in every span of so long. What was refused does not count."""

    count: int
    per_ms: int
    scope: RuleScope = RuleScope.ALL
    rest_ms: int = 0
    """Once it is exceeded nothing is admitted for so long; then it counts from nothing. 0: as soon as it has room."""

    def __post_init__(self) -> None:
        if self.count < 0 or self.per_ms <= 0 or self.rest_ms < 0:
            raise ValueError("a rate needs count >= 0, per_ms > 0 and rest_ms >= 0")


class SandboxRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a fault happens: all that is said must hold. Patterns are shell patterns, blind to case."""

    phase: RulePhase
    fault: Fault
    recipient: str = "*"
    local_part: str = "*"
    domain: str = "*"
    sender: str = "*"
    """The null sender is the empty string: the pattern ``""`` matches bounces only."""
    every: int = 1
    """Only every so-many-th time that all before it holds."""
    probability: float = 1.0
    first_attempts: int | None = None
    """Greylisting by count: only the first so many attempts of a recipient."""
    first_ms: int | None = None
    """Greylisting by time: only until so long after the first attempt of a recipient."""
    greylist_ms: int | None = None
    """Greylisting as it is done: only until so long after the first attempt of a triplet of client, sender and
    recipient, which is remembered from then on."""
    share: float = 1.0
    """Only for this share of recipients, and always for the same ones."""
    lacks: MissingAuth | None = None
    """At the final dot: only for a message that lacks this."""
    over: RuleRate | None = None
    """Only beyond this rate."""
    connections_over: int | None = None
    """Only while more connections than this are open, the present one included."""
    messages_over: int | None = None
    """Only once this connection has begun so many transactions already."""

    def __post_init__(self) -> None:
        if self.phase not in RECIPIENT_KNOWN and self.needs_recipient:
            raise ValueError(f"at {self.phase} no recipient is known yet")
        if self.phase not in SENDER_KNOWN and self.needs_sender:
            raise ValueError(f"at {self.phase} no sender is known yet")
        if self.every < 1:
            raise ValueError("every is 1 or more")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError("probability lies between 0 and 1")
        if not 0.0 <= self.share <= 1.0:
            raise ValueError("share lies between 0 and 1")
        if self.lacks is not None and self.phase is not RulePhase.DOT:
            raise ValueError("what a message lacks shows at the final dot only")
        if self.fault.keep and self.phase is not RulePhase.DOT:
            raise ValueError("a message can be kept at the final dot only")

    @property
    def needs_recipient(self) -> bool:
        scoped = self.over is not None and self.over.scope in (RuleScope.DOMAIN, RuleScope.RECIPIENT)
        greylists = (self.first_attempts, self.first_ms, self.greylist_ms) != (None, None, None)
        patterned = (self.recipient, self.local_part, self.domain) != ("*", "*", "*")
        return patterned or greylists or scoped or self.share < 1.0

    @property
    def needs_sender(self) -> bool:
        return self.sender != "*" or (
            self.over is not None and self.over.scope in (RuleScope.SENDER, RuleScope.SENDER_DOMAIN)
        )
