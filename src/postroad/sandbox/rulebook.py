"""The rules at work: which one applies now, and what each has to remember for that."""

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
from postroad.sandbox.replies import SandboxReply, reply_of
from postroad.sandbox.rules import RECIPIENT_KNOWN, ConnectionEnding, Fault, RulePhase, RuleRate, RuleScope, SandboxRule


class SessionView(Protocol):
    """What a rule may look at besides the recipients."""

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
    """A fault that happens now. ``recipient`` is the one it is about, or empty."""

    fault: Fault
    reply: SandboxReply | None
    recipient: str

    @property
    def refuses(self) -> bool:
        """Whether the command has no effect: it was refused, or is never answered."""
        if self.reply is not None and self.reply.code >= 400:
            return True
        return self.fault.ending in (ConnectionEnding.DROP, ConnectionEnding.RESET, ConnectionEnding.HANG)


class RuleBook:
    """Decides by a fixed list of rules. Another list needs another book, which remembers nothing yet.

    Memory grows with the recipients and senders that a greylisting rule or a rate has seen, and with nothing else.
    """

    def __init__(self, rules: Iterable[SandboxRule], *, clock: Clock, rng: Random, address_tags: bool = False) -> None:
        self.rules = tuple(rules)
        self._clock = clock
        self._rng = rng
        self._address_tags = address_tags
        self._by_phase: dict[RulePhase, list[_Live]] = {phase: [] for phase in RulePhase}
        for rule in self.rules:
            self._by_phase[rule.phase].append(self._live(rule))
        self._tagged: dict[str, _Live] = {}

    def decide(
        self, phase: RulePhase, scene: SessionView, recipients: Sequence[str] = (), content: bytes = b""
    ) -> RuleVerdict | None:
        """Return the fault of the first rule that applies, else that of a recipient's own tag, else None.

        ``content``: the message, at the final dot.
        """
        for live in self._by_phase[phase]:
            verdict = live.apply(scene, recipients, content)
            if verdict is not None:
                return verdict
        if self._address_tags and phase in RECIPIENT_KNOWN:
            return self._by_tag(phase, scene, recipients)
        return None

    def forget(self, connection: int) -> None:
        """Let go of what was remembered about a connection that is gone."""
        for rules in self._by_phase.values():
            for live in rules:
                live.forget(connection)

    def _by_tag(self, phase: RulePhase, scene: SessionView, recipients: Sequence[str]) -> RuleVerdict | None:
        for recipient in recipients:
            if "+" not in recipient:
                continue
            tag = tag_of(recipient)
            rule = rule_of_tag(tag)
            if rule is None or rule.phase is not phase:
                continue
            live = self._tagged.get(tag) or self._live(rule)
            if rule.first_attempts is not None:
                self._tagged[tag] = live
            verdict = live.apply(scene, (recipient,), b"")
            if verdict is not None:
                return verdict
        return None

    def _live(self, rule: SandboxRule) -> _Live:
        return _Live(rule, self._clock, self._rng)


class _Live:
    """One rule with its counters."""

    def __init__(self, rule: SandboxRule, clock: Clock, rng: Random) -> None:
        self._rule = rule
        self._clock = clock
        self._rng = rng
        self._reply = reply_of(rule.fault.reply) if rule.fault.reply else None
        self._recipient = _pattern(rule.recipient)
        self._local_part = _pattern(rule.local_part)
        self._domain = _pattern(rule.domain)
        self._sender = _pattern(rule.sender)
        self._times = 0
        self._attempts: dict[str, tuple[int, int]] = {}
        self._triplets: dict[tuple[str, str, str], int] = {}
        self._admitted: dict[str | int, deque[int]] = {}
        self._resting_ms: dict[str | int, int] = {}

    def apply(self, scene: SessionView, recipients: Sequence[str], content: bytes) -> RuleVerdict | None:
        rule, now_ms = self._rule, self._clock.now_ms()
        recipient = self._subject(recipients)
        if recipient is None or not _matches(self._sender, scene.sender or ""):
            return None
        if rule.lacks is not None and not lacks(rule.lacks, content, scene.sender or ""):
            return None
        if not (self._crowded(scene) and self._early(recipient, now_ms) and self._grey(scene, recipient, now_ms)):
            return None
        if rule.over and not self._exceeded(rule.over, scene, recipient, now_ms):
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
            self._resting_ms.pop(connection, None)

    def _subject(self, recipients: Sequence[str]) -> str | None:
        """Return the first recipient that the patterns and the share fit; empty if the rule asks for none."""
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
        # By what it says as well, so that those whose mailbox is full are others than those who do not exist.
        return self._rule.share >= 1.0 or part_of(f"{self._rule.fault.reply} {recipient.lower()}") < self._rule.share

    def _crowded(self, scene: SessionView) -> bool:
        rule = self._rule
        if rule.connections_over is not None and scene.open_connections <= rule.connections_over:
            return False
        return rule.messages_over is None or scene.transactions >= rule.messages_over

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

    def _grey(self, scene: SessionView, recipient: str, now_ms: int) -> bool:
        if self._rule.greylist_ms is None:
            return True
        triplet = (scene.ip, (scene.sender or "").lower(), recipient.lower())
        return now_ms - self._triplets.setdefault(triplet, now_ms) < self._rule.greylist_ms

    def _exceeded(self, rate: RuleRate, scene: SessionView, recipient: str, now_ms: int) -> bool:
        who = _share(rate.scope, scene, recipient)
        if now_ms < self._resting_ms.get(who, 0):
            return True
        admitted = self._admitted.setdefault(who, deque())
        while admitted and now_ms - admitted[0] >= rate.per_ms:
            admitted.popleft()
        if len(admitted) >= rate.count:
            if rate.rest_ms:
                self._resting_ms[who] = now_ms + rate.rest_ms
                admitted.clear()
            return True
        admitted.append(now_ms)
        return False


def part_of(text: str) -> float:
    """Where a text falls between 0 and 1: always the same for the same one, and evenly for many."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64


def _share(scope: RuleScope, scene: SessionView, recipient: str) -> str | int:
    match scope:
        case RuleScope.ALL:
            return ""
        case RuleScope.CONNECTION:
            return scene.connection
        case RuleScope.IP:
            return scene.ip
        case RuleScope.SENDER:
            return (scene.sender or "").lower()
        case RuleScope.SENDER_DOMAIN:
            return (scene.sender or "").rpartition("@")[2].lower()
        case RuleScope.DOMAIN:
            return recipient.rpartition("@")[2].lower()
        case RuleScope.RECIPIENT:
            return recipient.lower()


def _pattern(pattern: str) -> re.Pattern[str] | None:
    """Return the compiled shell pattern, or None for the one that fits everything."""
    return None if pattern == "*" else re.compile(fnmatch.translate(pattern.lower()))


def _matches(pattern: re.Pattern[str] | None, text: str) -> bool:
    return pattern is None or pattern.match(text.lower()) is not None
