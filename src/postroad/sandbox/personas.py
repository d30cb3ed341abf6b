"""Personas: the sandbox treats some recipients as Gmail does, others as Yahoo does. ``personas.toml`` is the data.

The domain of a recipient determines its persona. Some domains belong to a persona by name. Of all others, each persona
gets its configured share, always the same domains. The remaining domains have no persona and cause no faults.
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
from postroad.sandbox.rulebook import RuleBook, RuleVerdict, SessionView, fraction_of
from postroad.sandbox.rules import RulePhase, SandboxRule


class Habit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One behaviour of a persona, with its source. ``note``: which part of it is not published."""

    rule: SandboxRule
    source: str
    note: str = ""


class Persona(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A persona, one table of ``personas.toml``."""

    provider: str
    """The name of the mailbox provider in delivery."""
    domains: tuple[str, ...] = ()
    habits: tuple[Habit, ...]


@cache
def known_personas() -> Mapping[str, Persona]:
    """Return the personas by name."""
    text = files("postroad.sandbox").joinpath("personas.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Persona])


def parse_shares(text: str) -> dict[str, float]:
    """Parse shares such as ``gmail=0.6,outlook=0.3``.

    Args:
        text: The shares. A persona without a number has only the domains that belong to it by name.

    Returns:
        The share of each persona.

    Raises:
        ValueError: The syntax is invalid, a persona is unknown, or the sum exceeds 1.
    """
    shares: dict[str, float] = {}
    for word in text.split(","):
        name, equals, number = (part.strip() for part in word.partition("="))
        if name in shares:
            raise ValueError(f"{name} occurs twice")
        try:
            shares[name] = float(number) if equals else 0.0
        except ValueError:
            raise ValueError(
                f"{word.strip()!r} is not a share: write a name, = and a number, as in gmail=0.6"
            ) from None
    require_shares(shares)
    return shares


def require_shares(shares: Mapping[str, float]) -> None:
    """Check that all personas are known and their shares are valid. Raises ValueError."""
    for name, share in shares.items():
        if name not in known_personas():
            raise ValueError(f"there is no persona {name!r} (known: {', '.join(known_personas())})")
        if not (math.isfinite(share) and 0.0 <= share <= 1.0):
            raise ValueError(f"the share of {name} must be between 0 and 1, as in gmail=0.6")
    if sum(shares.values()) > 1.0 + 1e-9:
        raise ValueError(f"the sum of the shares is {sum(shares.values()):g}, which is more than 1")


class PersonaMap:
    """Maps domains to personas."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        require_shares(shares)
        self._shares = dict(shares)
        self._own = {domain: name for name in shares for domain in known_personas()[name].domains}
        self._cache: dict[str, str | None] = {}

    def persona_of(self, domain: str) -> str | None:
        """Return the name of the persona of a domain, or None."""
        domain = domain.lower()
        if domain not in self._cache:
            self._cache[domain] = self._own.get(domain) or self._by_share(domain)
        return self._cache[domain]

    def provider_of(self, domain: str) -> str | None:
        """Return the provider of a domain, by its name in delivery, or None if the domain has no persona."""
        name = self.persona_of(domain)
        return None if name is None else known_personas()[name].provider

    def _by_share(self, domain: str) -> str | None:
        fraction, upper_bound = fraction_of(domain), 0.0
        for name, share in self._shares.items():
            upper_bound += share
            if fraction < upper_bound:
                return name
        return None


class PersonaSet:
    """The personas of one running sandbox, each with its state.

    A connection belongs to the persona of its last recipient, so that a relay's connection, which serves several
    providers, is counted once.
    """

    def __init__(self, shares: Mapping[str, float], *, clock: Clock, rng: Random, require_authentication: bool) -> None:
        self._map = PersonaMap(shares)
        self._states: dict[str, _PersonaState] = {}
        self._peers: dict[int, _Peer] = {}
        for name in shares:
            rules = [habit.rule for habit in known_personas()[name].habits]
            if not require_authentication:
                rules = [rule for rule in rules if rule.lacks is None]
            self._states[name] = _PersonaState(RuleBook(rules, clock=clock, rng=rng))

    def decide(
        self, phase: RulePhase, session: SessionView, recipients: Sequence[str], content: bytes
    ) -> RuleVerdict | None:
        """Return the verdict of the first recipient's persona that has one, or None."""
        for recipient in recipients:
            name = self._map.persona_of(recipient.rpartition("@")[2])
            self._set_peer(_Peer(name, session.ip), session.connection)
            if name is not None:
                verdict = self._states[name].decide(phase, session, recipient, content)
                if verdict is not None:
                    if verdict.reply is not None and verdict.reply.code == 421:
                        self._set_peer(None, session.connection)  # RFC 5321 §3.8: the server closes the connection.
                    return verdict
        return None

    def forget(self, connection: int) -> None:
        """Delete the state of a closed connection."""
        self._set_peer(None, connection)
        for state in self._states.values():
            state.forget(connection)

    def _set_peer(self, peer: _Peer | None, connection: int) -> None:
        before = self._peers.get(connection)
        if before == peer:
            return
        if before is not None and before.persona is not None:
            self._states[before.persona].clients[before.ip] -= 1
        if peer is None:
            del self._peers[connection]
            return
        self._peers[connection] = peer
        if peer.persona is not None:
            self._states[peer.persona].clients[peer.ip] += 1


class _Peer(NamedTuple):
    persona: str | None
    ip: str


class _PersonaState:
    """The state of one persona: its rules, its connections by client, and the transactions of each connection."""

    def __init__(self, rules: RuleBook) -> None:
        self.clients: Counter[str] = Counter()
        self._rules = rules
        self._transactions: dict[int, _TransactionCount] = {}

    def decide(self, phase: RulePhase, session: SessionView, recipient: str, content: bytes) -> RuleVerdict | None:
        count = self._transactions.setdefault(session.connection, _TransactionCount())
        if count.transaction != session.transactions:
            count.transaction = session.transactions
            count.begun += 1
        seen = _PersonaView(
            connection=session.connection,
            ip=session.ip,
            sender=session.sender,
            transactions=count.begun - 1,
            open_connections=self.clients[session.ip],
        )
        return self._rules.decide(phase, seen, (recipient,), content)

    def forget(self, connection: int) -> None:
        self._transactions.pop(connection, None)
        self._rules.forget(connection)


class _TransactionCount(msgspec.Struct):
    """``transaction``: number of the last one with a recipient of this persona. ``begun``: the count of those."""

    transaction: int = -1
    begun: int = 0


class _PersonaView(msgspec.Struct):
    """The session as one persona sees it: with this client's connections and earlier transactions for it only."""

    connection: int
    ip: str
    sender: str | None
    transactions: int
    open_connections: int
