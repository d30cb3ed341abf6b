"""The faults of the sandbox as data: a rule is a condition, a fault is an effect.

Rules are evaluated in order, and the first that applies wins. After the rules, faults in recipients' addresses are
evaluated (see :mod:`postroad.sandbox.addresses`).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from postroad.sandbox.replies import parse_reply


class RulePhase(StrEnum):
    """The phase of a session in which a fault is applied. Rejections are counted by phase, too."""

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
    """What happens to the connection after a fault."""

    STAY = "stay"
    CLOSE = "close"
    """The reply is sent, then the connection is closed, as always after a 421 (RFC 5321 §3.8)."""
    DROP = "drop"
    """The connection is closed instead of the reply. Replies to earlier commands still arrive."""
    RESET = "reset"
    """Like DROP, by a TCP reset: the client may lose earlier replies too."""
    HANG = "hang"
    """No reply, and the connection stays open until the client gives up."""


class RuleScope(StrEnum):
    """The scope within which a rate is counted."""

    ALL = "all"
    CONNECTION = "connection"
    IP = "ip"
    SENDER = "sender"
    SENDER_DOMAIN = "sender-domain"
    """Unlike SENDER, it also covers senders whose return path differs for each message."""
    DOMAIN = "domain"
    RECIPIENT = "recipient"


class MissingAuth(StrEnum):
    """A form of authentication whose absence can be detected without DNS."""

    SIGNATURE = "signature"
    """A DKIM-Signature field (RFC 6376 §3.5). It is not verified."""
    ALIGNMENT = "alignment"
    """A signature or a return path with a domain that is aligned with that of From (RFC 7489 §3.1)."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An effect that replaces or modifies the ordinary reply."""

    reply: str = ""
    """A name from ``replies.toml`` (``gmail-unusual-rate``) or a reply (``550 5.1.1 No such user``).
    Empty: the ordinary one."""
    delay_ms: int = 0
    """Delay of the reply, or of the ending."""
    byte_delay_ms: int = 0
    """Delay between the octets of the reply."""
    ending: ConnectionEnding = ConnectionEnding.STAY
    keep: bool = False
    """At the final dot: the message is stored and logged although the client gets no 250."""

    def __post_init__(self) -> None:
        if self.reply:
            parse_reply(self.reply)
        if self.delay_ms < 0 or self.byte_delay_ms < 0:
            raise ValueError("a delay must not be negative")


class RuleRate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most ``count`` in any period of ``per_ms``. Rejected ones do not count."""

    count: int
    per_ms: int
    scope: RuleScope = RuleScope.ALL
    rest_ms: int = 0
    """If the rate is exceeded, reject everything for this time, then start at zero. 0: admit as soon as possible."""

    def __post_init__(self) -> None:
        if self.count < 0 or self.per_ms <= 0 or self.rest_ms < 0:
            raise ValueError("a rate needs count >= 0, per_ms > 0 and rest_ms >= 0")


class SandboxRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule: a fault, and its conditions, all of which must hold. Patterns are shell patterns and ignore case."""

    phase: RulePhase
    fault: Fault
    recipient: str = "*"
    local_part: str = "*"
    domain: str = "*"
    sender: str = "*"
    """The null sender is the empty string: the pattern ``""`` matches bounces only."""
    every: int = 1
    """Only every n-th time that the other conditions hold."""
    probability: float = 1.0
    first_attempts: int | None = None
    """Greylisting by count: only for the first n attempts to a recipient."""
    first_ms: int | None = None
    """Greylisting by time: only for this time after the first attempt to a recipient."""
    greylist_ms: int | None = None
    """Usual greylisting: only for this time after the first attempt of a triplet of client, sender and recipient,
    which is remembered from then on."""
    share: float = 1.0
    """Only for this share of recipients, always the same ones."""
    lacks: MissingAuth | None = None
    """At the final dot: only for a message without this."""
    over: RuleRate | None = None
    """Only if this rate is exceeded."""
    connections_over: int | None = None
    """Only while more connections than this are open, including this one."""
    messages_over: int | None = None
    """Only after this connection has had so many transactions."""

    def __post_init__(self) -> None:
        if self.phase not in RECIPIENT_KNOWN and self.needs_recipient:
            raise ValueError(f"at {self.phase} no recipient is known yet")
        if self.phase not in SENDER_KNOWN and self.needs_sender:
            raise ValueError(f"at {self.phase} no sender is known yet")
        if self.every < 1:
            raise ValueError("every must be 1 or more")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError("probability must be between 0 and 1")
        if not 0.0 <= self.share <= 1.0:
            raise ValueError("share must be between 0 and 1")
        if self.lacks is not None and self.phase is not RulePhase.DOT:
            raise ValueError("lacks can be checked at the final dot only")
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
