"""Personas: a sandbox that treats some recipients as Gmail would, others as Yahoo would. ``personas.toml`` is the data.

A recipient's domain says who answers for it. Domains that are a persona's own are its own; of all others each persona
has the share that it was given, always the same ones, and the rest is with nobody and well-behaved.
"""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from random import Random
from typing import NamedTuple

import msgspec

from postroad.clock import Clock
from postroad.sandbox.rulebook import RuleBook, RuleVerdict, SessionView, part_of
from postroad.sandbox.rules import RulePhase, SandboxRule


class Habit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that a persona does, and who says so."""

    rule: SandboxRule
    source: str
    note: str = ""
    """What of it is not published."""


class Persona(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of ``personas.toml``."""

    provider: str
    """What delivery calls the mailbox provider."""
    domains: tuple[str, ...] = ()
    habits: tuple[Habit, ...]


@cache
def known_personas() -> Mapping[str, Persona]:
    """Return the personas by name."""
    text = files("postroad.sandbox").joinpath("personas.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Persona])


def parse_shares(text: str) -> dict[str, float]:
    """Read ``gmail=0.6,outlook=0.3``. Without a number a persona has its own domains only.

    Raises:
        ValueError: it is not of that form, or names what is not there, or more than the whole.
    """
    shares: dict[str, float] = {}
    for word in text.split(","):
        name, equals, number = (part.strip() for part in word.partition("="))
        if name in shares:
            raise ValueError(f"{name} is there twice")
        try:
            shares[name] = float(number) if equals else 0.0
        except ValueError:
            raise ValueError(f"{word.strip()!r} is no share: write a name, = and a number, as in gmail=0.6") from None
    require_shares(shares)
    return shares


def require_shares(shares: Mapping[str, float]) -> None:
    """Raises ValueError for a persona that is not known, and for shares that are none."""
    for name, share in shares.items():
        if name not in known_personas():
            raise ValueError(f"there is no persona {name!r} (known: {', '.join(known_personas())})")
        if not (math.isfinite(share) and 0.0 <= share <= 1.0):
            raise ValueError(f"the share of {name} lies between 0 and 1, as in gmail=0.6")
    if sum(shares.values()) > 1.0 + 1e-9:
        raise ValueError(f"the shares are {sum(shares.values()):g} together, and 1 is all there is")


class Cast:
    """Which persona answers for which domain."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        require_shares(shares)
        self._shares = dict(shares)
        self._own = {domain: name for name in shares for domain in known_personas()[name].domains}
        self._found: dict[str, str | None] = {}

    def persona_of(self, domain: str) -> str | None:
        """Return the name of the persona, or None for a domain that is well-behaved."""
        domain = domain.lower()
        if domain not in self._found:
            self._found[domain] = self._own.get(domain) or self._by_share(domain)
        return self._found[domain]

    def provider_of(self, domain: str) -> str | None:
        """Return what delivery calls the provider of a domain, or None where no persona answers for it."""
        name = self.persona_of(domain)
        return None if name is None else known_personas()[name].provider

    def _by_share(self, domain: str) -> str | None:
        part, reached = part_of(domain), 0.0
        for name, share in self._shares.items():
            reached += share
            if part < reached:
                return name
        return None


class Company:
    """The personas of one running sandbox, each with what it remembers.

    A connection talks to the persona of the recipient that it asked for last, so that one which a relay's client
    shares among providers counts once.
    """

    def __init__(self, shares: Mapping[str, float], *, clock: Clock, rng: Random, require_authentication: bool) -> None:
        self._cast = Cast(shares)
        self._desks: dict[str, _Desk] = {}
        self._talks: dict[int, _Talk] = {}
        for name in shares:
            rules = [habit.rule for habit in known_personas()[name].habits]
            if not require_authentication:
                rules = [rule for rule in rules if rule.lacks is None]
            self._desks[name] = _Desk(RuleBook(rules, clock=clock, rng=rng))

    def decide(
        self, phase: RulePhase, scene: SessionView, recipients: Sequence[str], content: bytes
    ) -> RuleVerdict | None:
        """Ask the persona of each recipient; the first that has something to say says it for all."""
        for recipient in recipients:
            name = self._cast.persona_of(recipient.rpartition("@")[2])
            self._turn_to(_Talk(name, scene.ip), scene.connection)
            if name is not None:
                verdict = self._desks[name].decide(phase, scene, recipient, content)
                if verdict is not None:
                    if verdict.reply is not None and verdict.reply.code == 421:
                        self._turn_to(None, scene.connection)  # RFC 5321 §3.8: the connection ends with it.
                    return verdict
        return None

    def forget(self, connection: int) -> None:
        """Let go of what was remembered about a connection that is gone."""
        self._turn_to(None, connection)
        for desk in self._desks.values():
            desk.forget(connection)

    def _turn_to(self, talk: _Talk | None, connection: int) -> None:
        before = self._talks.get(connection)
        if before == talk:
            return
        if before is not None and before.persona is not None:
            self._desks[before.persona].clients[before.ip] -= 1
        if talk is None:
            del self._talks[connection]
            return
        self._talks[connection] = talk
        if talk.persona is not None:
            self._desks[talk.persona].clients[talk.ip] += 1


class _Talk(NamedTuple):
    persona: str | None
    ip: str


class _Desk:
    """One persona's: its rules, how many connections of each client talk to it, and how much each has said."""

    def __init__(self, rules: RuleBook) -> None:
        self.clients: Counter[str] = Counter()
        self._rules = rules
        self._visits: dict[int, _Visit] = {}

    def decide(self, phase: RulePhase, scene: SessionView, recipient: str, content: bytes) -> RuleVerdict | None:
        visit = self._visits.setdefault(scene.connection, _Visit())
        if visit.transaction != scene.transactions:
            visit.transaction = scene.transactions
            visit.begun += 1
        seen = _Seen(
            connection=scene.connection,
            ip=scene.ip,
            sender=scene.sender,
            transactions=visit.begun - 1,
            open_connections=self.clients[scene.ip],
        )
        return self._rules.decide(phase, seen, (recipient,), content)

    def forget(self, connection: int) -> None:
        self._visits.pop(connection, None)
        self._rules.forget(connection)


class _Visit(msgspec.Struct):
    """``transaction``: the last one that had a recipient of this persona. ``begun``: how many had."""

    transaction: int = -1
    begun: int = 0


class _Seen(msgspec.Struct):
    """The scene as one persona sees it: this client's connections to it, and transactions before the present one."""

    connection: int
    ip: str
    sender: str | None
    transactions: int
    open_connections: int
