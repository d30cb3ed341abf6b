"""Defines the limits of receivers, and merges those of several tables."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal, NamedTuple, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from postroad.dns.providers import OTHER_PROVIDERS
from postroad.gates.name import GateKind, GateName, Receiver
from postroad.settings import RateField, RouteSettings, TlsMode


class ShapingTls(StrEnum):
    """Which TLS a session with a receiver must use."""

    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReceiverLimits(_Table):
    """Limits of one sender at one receiver. None: no limit, or that of a more general table."""

    connections: int | None = Field(default=None, ge=1, description="at once, for each sender")
    connections_in_all: int | None = Field(
        default=None, ge=1, description="at once, all senders of a provider together"
    )
    messages_per_connection: int | None = Field(default=None, ge=1)
    rate: RateField | None = None
    tls: ShapingTls | None = None

    def overridden_by(self, more_special: ReceiverLimits) -> Self:
        """Return these limits, overridden by those that the more special table sets."""
        return self.model_copy(update={name: getattr(more_special, name) for name in more_special.model_fields_set})


class LimitTable(ReceiverLimits):
    """Limits of a receiver, and those of single senders, which override them."""

    sender: dict[str, ReceiverLimits] = Field(default_factory=dict, description="by From address")

    @property
    def needs_gate(self) -> bool:
        """Whether it sets a rate or connections for any sender. Gates enforce these."""
        return any({"rate", "connections"} & limits.model_fields_set for limits in (self, *self.sender.values()))

    @property
    def own_limits(self) -> ReceiverLimits:
        """Those of the receiver itself, without senders."""
        return ReceiverLimits(**{name: getattr(self, name) for name in self.model_fields_set - {"sender"}})


Level = Literal["default", "provider", "site", "domain"]


class LimitSource(_Table):
    """Where one limit comes from, as ``provider.google`` or ``default.sender.news@example.com``."""

    table: str
    limits: ReceiverLimits


class LimitScope(msgspec.Struct, frozen=True, kw_only=True):
    """One sender at one receiver: its replies are counted together and change its limits."""

    sender: str
    receiver: Receiver

    @classmethod
    def of_gate(cls, gate: str) -> Self | None:
        """Return the scope of a gate. None: the gate does not limit one sender at one receiver."""
        match GateName.parse(gate):
            case GateName(kind=GateKind.PROVIDER, of=sender, receiver=Receiver() as receiver) if sender:
                return cls(sender=sender, receiver=receiver)
            case _:
                return None

    @property
    def provider(self) -> str:
        return self.receiver.provider

    @property
    def gate(self) -> str:
        return str(GateName.at_receiver(self.sender, self.receiver))

    @property
    def rule_provider(self) -> str:
        """The provider that rules match: a site or domain of no known provider, if it has its own gate, is one."""
        return str(self.receiver) if self.provider == OTHER_PROVIDERS else self.provider


class SessionLimits(NamedTuple):
    """Limits of the sessions of a direct route with one host."""

    connections: int
    messages_per_connection: int
    tls: TlsMode


def session_limits(route: RouteSettings, limits: ReceiverLimits | None) -> SessionLimits:
    """Return the stricter value of a route's settings and the limits, for each limit.

    Args:
        route: Settings of the route.
        limits: Limits of the receiver. None: it has none.
    """
    limits = limits or ReceiverLimits()
    return SessionLimits(
        connections=_min_limit(route.connections, limits.connections, limits.connections_in_all),
        messages_per_connection=_min_limit(route.messages_per_connection, limits.messages_per_connection),
        tls=TlsMode.STARTTLS if limits.tls is ShapingTls.REQUIRED else route.tls,
    )


def _min_limit(own: int, *limits: int | None) -> int:
    return min([own, *(limit for limit in limits if limit is not None)])


def merge_limits(sources: Iterable[LimitSource]) -> tuple[ReceiverLimits, dict[str, str]]:
    """Merge limits of several tables.

    Args:
        sources: The tables. Later ones override earlier ones.

    Returns:
        The limits, and by name of the limit the table that it comes from.
    """
    limits = ReceiverLimits()
    why: dict[str, str] = {}
    for source in sources:
        limits = limits.overridden_by(source.limits)
        why |= dict.fromkeys(source.limits.model_fields_set, source.table)
    return limits, why
