"""Evaluates the rules, with the state that each rule needs."""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections import deque
from collections.abc import Iterable, Sequence
from random import Random
from typing import Protocol

import msgspec

from postroad.clock import Clock
from postroad.sandbox.addresses import rule_of_tag, tag_of
from postroad.sandbox.alignment import lacks
from postroad.sandbox.replies import SandboxReply, parse_reply
from postroad.sandbox.rules import RECIPIENT_KNOWN, ConnectionEnding, Fault, RulePhase, RuleRate, RuleScope, SandboxRule


class SessionView(Protocol):
    """The properties of a session that rules use, in addition to the recipients."""

    @property
    def connection(self) -> int: ...
    @property
    def ip(self) -> str: ...
    @property
    def sender(self) -> str | None: ...
    @property
    def transactions(self) -> int: ...
    @property
    def open_connections(self) -> int: ...


class RuleVerdict(msgspec.Struct, frozen=True):
    """A fault to apply now. ``recipient``: the recipient that caused it, or empty."""

    fault: Fault
    reply: SandboxReply | None
    recipient: str

    @property
    def refuses(self) -> bool:
        """Whether the command has no effect, because it is rejected or never answered."""
        if self.reply is not None and self.reply.code >= 400:
            return True
        return self.fault.ending in (ConnectionEnding.DROP, ConnectionEnding.RESET, ConnectionEnding.HANG)


class RuleBook:
    """Decides by a fixed list of rules. Another list needs a new book, which has no state yet.

    Memory grows only with the number of recipients and senders that greylisting rules and rates have seen.
    """

    def __init__(self, rules: Iterable[SandboxRule], *, clock: Clock, rng: Random, address_tags: bool = False) -> None:
        self.rules = tuple(rules)
        self._clock = clock
        self._rng = rng
        self._address_tags = address_tags
        self._by_phase: dict[RulePhase, list[_ActiveRule]] = {phase: [] for phase in RulePhase}
        for rule in self.rules:
            self._by_phase[rule.phase].append(self._activate(rule))
        self._tagged: dict[str, _ActiveRule] = {}

    def decide(
        self, phase: RulePhase, session: SessionView, recipients: Sequence[str] = (), content: bytes = b""
    ) -> RuleVerdict | None:
        """Return the fault of the first rule that applies, else that of a recipient's tag, else None.

        Args:
            phase: The phase of the session.
            session: The session.
            recipients: The recipients that the phase is about.
            content: The message, at the final dot.

        Returns:
            The fault to apply, or None.
        """
        for active in self._by_phase[phase]:
            verdict = active.apply(session, recipients, content)
            if verdict is not None:
                return verdict
        if self._address_tags and phase in RECIPIENT_KNOWN:
            return self._by_tag(phase, session, recipients)
        return None

    def forget(self, connection: int) -> None:
        """Delete the state of a closed connection."""
        for rules in self._by_phase.values():
            for active in rules:
                active.forget(connection)

    def _by_tag(self, phase: RulePhase, session: SessionView, recipients: Sequence[str]) -> RuleVerdict | None:
        for recipient in recipients:
            if "+" not in recipient:
                continue
            tag = tag_of(recipient)
            rule = rule_of_tag(tag)
            if rule is None or rule.phase is not phase:
                continue
            active = self._tagged.get(tag) or self._activate(rule)
            if rule.first_attempts is not None:
                self._tagged[tag] = active
            verdict = active.apply(session, (recipient,), b"")
            if verdict is not None:
                return verdict
        return None

    def _activate(self, rule: SandboxRule) -> _ActiveRule:
        return _ActiveRule(rule, self._clock, self._rng)


class _ActiveRule:
    """One rule with its counters."""

    def __init__(self, rule: SandboxRule, clock: Clock, rng: Random) -> None:
        self._rule = rule
        self._clock = clock
        self._rng = rng
        self._reply = parse_reply(rule.fault.reply) if rule.fault.reply else None
        self._recipient = _pattern(rule.recipient)
        self._local_part = _pattern(rule.local_part)
        self._domain = _pattern(rule.domain)
        self._sender = _pattern(rule.sender)
        self._times = 0
        self._attempts: dict[str, tuple[int, int]] = {}
        self._triplets: dict[tuple[str, str, str], int] = {}
        self._admitted: dict[str | int, deque[int]] = {}
        self._resting_until_ms: dict[str | int, int] = {}

    def apply(self, session: SessionView, recipients: Sequence[str], content: bytes) -> RuleVerdict | None:
        rule, now_ms = self._rule, self._clock.now_ms()
        recipient = self._subject(recipients)
        if recipient is None or not _matches(self._sender, session.sender or ""):
            return None
        if rule.lacks is not None and not lacks(rule.lacks, content, session.sender or ""):
            return None
        if not (self._crowded(session) and self._early(recipient, now_ms) and self._grey(session, recipient, now_ms)):
            return None
        if rule.over and not self._exceeded(rule.over, session, recipient, now_ms):
            return None
        self._times += 1
        if self._times % rule.every:
            return None
        if rule.probability < 1.0 and self._rng.random() >= rule.probability:
            return None
        return RuleVerdict(rule.fault, self._reply, recipient)

    def forget(self, connection: int) -> None:
        if self._rule.over and self._rule.over.scope is RuleScope.CONNECTION:
            self._admitted.pop(connection, None)
            self._resting_until_ms.pop(connection, None)

    def _subject(self, recipients: Sequence[str]) -> str | None:
        """Return the first recipient that matches. Empty if there are no recipients and the rule needs none."""
        for recipient in recipients:
            local_part, _, domain = recipient.rpartition("@")
            if (
                _matches(self._recipient, recipient)
                and _matches(self._local_part, local_part)
                and _matches(self._domain, domain)
                and self._has_share(recipient)
            ):
                return recipient
        return None if recipients or self._rule.needs_recipient else ""

    def _has_share(self, recipient: str) -> bool:
        # The reply is part of the hash, so that different rules select different recipients.
        return (
            self._rule.share >= 1.0 or fraction_of(f"{self._rule.fault.reply} {recipient.lower()}") < self._rule.share
        )

    def _crowded(self, session: SessionView) -> bool:
        rule = self._rule
        if rule.connections_over is not None and session.open_connections <= rule.connections_over:
            return False
        return rule.messages_over is None or session.transactions >= rule.messages_over

    def _early(self, recipient: str, now_ms: int) -> bool:
        rule = self._rule
        if rule.first_attempts is None and rule.first_ms is None:
            return True
        key = recipient.lower()
        attempts, since_ms = self._attempts.get(key, (0, now_ms))
        self._attempts[key] = (attempts + 1, since_ms)
        if rule.first_attempts is not None and attempts >= rule.first_attempts:
            return False
        return rule.first_ms is None or now_ms - since_ms < rule.first_ms

    def _grey(self, session: SessionView, recipient: str, now_ms: int) -> bool:
        if self._rule.greylist_ms is None:
            return True
        triplet = (session.ip, (session.sender or "").lower(), recipient.lower())
        return now_ms - self._triplets.setdefault(triplet, now_ms) < self._rule.greylist_ms

    def _exceeded(self, rate: RuleRate, session: SessionView, recipient: str, now_ms: int) -> bool:
        key = _scope_key(rate.scope, session, recipient)
        if now_ms < self._resting_until_ms.get(key, 0):
            return True
        admitted = self._admitted.setdefault(key, deque())
        while admitted and now_ms - admitted[0] >= rate.per_ms:
            admitted.popleft()
        if len(admitted) >= rate.count:
            if rate.rest_ms:
                self._resting_until_ms[key] = now_ms + rate.rest_ms
                admitted.clear()
            return True
        admitted.append(now_ms)
        return False


def fraction_of(text: str) -> float:
    """Return a number between 0 and 1 for a text: always the same, and uniformly distributed over many texts."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64


def _scope_key(scope: RuleScope, session: SessionView, recipient: str) -> str | int:
    match scope:
        case RuleScope.ALL:
            return ""
        case RuleScope.CONNECTION:
            return session.connection
        case RuleScope.IP:
            return session.ip
        case RuleScope.SENDER:
            return (session.sender or "").lower()
        case RuleScope.SENDER_DOMAIN:
            return (session.sender or "").rpartition("@")[2].lower()
        case RuleScope.DOMAIN:
            return recipient.rpartition("@")[2].lower()
        case RuleScope.RECIPIENT:
            return recipient.lower()


def _pattern(pattern: str) -> re.Pattern[str] | None:
    """Return the compiled shell pattern, or None for the one that matches everything."""
    return None if pattern == "*" else re.compile(fnmatch.translate(pattern.lower()))


def _matches(pattern: re.Pattern[str] | None, text: str) -> bool:
    return pattern is None or pattern.match(text.lower()) is not None
