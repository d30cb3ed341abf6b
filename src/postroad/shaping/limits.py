"""Limits, and which of them hold where."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal, NamedTuple, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from postroad.gates.name import GateKind, GateName, Receiver
from postroad.settings import RateField, RouteSettings, TlsMode

TAIL = "other"
"""The provider of all domains that are not known: many hosts, so what one of them says is said of no other."""


class ShapingTls(StrEnum):
    """What a session with a receiver must be."""

    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReceiverLimits(_Table):
    """Of one sender at one receiver. None: no limit, or none of its own."""

    connections: int | None = Field(default=None, ge=1, description="at once, for each sender")
    connections_in_all: int | None = Field(
        default=None, ge=1, description="at once, all senders of a provider together"
    )
    messages_per_connection: int | None = Field(default=None, ge=1)
    rate: RateField | None = None
    tls: ShapingTls | None = None

    def under(self, more_special: ReceiverLimits) -> Self:
        """Return these, each replaced by the more special one where that is given."""
        return self.model_copy(update={name: getattr(more_special, name) for name in more_special.model_fields_set})


class LimitTable(ReceiverLimits):
    """Limits of a receiver, and what single senders have instead."""

    sender: dict[str, ReceiverLimits] = Field(default_factory=dict, description="by From address")

    @property
    def sets_pace(self) -> bool:
        """Whether it has a rate or connections of its own, for anybody: what gates hold."""
        return any({"rate", "connections"} & each.model_fields_set for each in (self, *self.sender.values()))

    @property
    def alone(self) -> ReceiverLimits:
        """Those of the receiver itself."""
        return ReceiverLimits(**{name: getattr(self, name) for name in self.model_fields_set - {"sender"}})


Level = Literal["default", "provider", "site", "domain"]


class LimitSource(_Table):
    """Where one limit comes from, as ``provider.google`` or ``default.sender.news@example.com``."""

    table: str
    limits: ReceiverLimits


class LimitScope(msgspec.Struct, frozen=True, kw_only=True):
    """Whose replies are counted together, and who is slowed down by them: one sender at one receiver."""

    sender: str
    receiver: Receiver

    @classmethod
    def of_gate(cls, gate: str) -> Self | None:
        """The scope that a gate is of. None: it is of no sender at a receiver."""
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
    def known_as(self) -> str:
        """The provider that rules know it by: what has a gate of its own is none of the many hosts of the tail."""
        return str(self.receiver) if self.provider == TAIL else self.provider


class SessionLimits(NamedTuple):
    """On what terms a direct route speaks to one host: its own settings, each as strict as the receiver asks for."""

    connections: int
    messages_per_connection: int
    tls: TlsMode


def session_limits(route: RouteSettings, limits: ReceiverLimits | None) -> SessionLimits:
    """The stricter of a route's settings and of limits, one by one. None: no limits hold for it."""
    limits = limits or ReceiverLimits()
    return SessionLimits(
        connections=_least(route.connections, limits.connections, limits.connections_in_all),
        messages_per_connection=_least(route.messages_per_connection, limits.messages_per_connection),
        tls=TlsMode.STARTTLS if limits.tls is ShapingTls.REQUIRED else route.tls,
    )


def _least(most: int, *limits: int | None) -> int:
    return min([most, *(limit for limit in limits if limit is not None)])


def resolve(sources: Iterable[LimitSource]) -> tuple[ReceiverLimits, dict[str, str]]:
    """Lay limits over each other, the most special last. Returns them, and which table each came from."""
    limits = ReceiverLimits()
    why: dict[str, str] = {}
    for source in sources:
        limits = limits.under(source.limits)
        why |= dict.fromkeys(source.limits.model_fields_set, source.table)
    return limits, why
