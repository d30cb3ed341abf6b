"""Builds, formats and parses the names of the gates that email uses."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from msgspec import Struct

from postroad.dns.providers import OTHER_PROVIDERS, provider_table


class GateKind(StrEnum):
    """What a gate limits. The value is the first part of its name."""

    QUEUE = "queue"  # all jobs
    CAMPAIGN = "campaign"
    HOLD = "hold"  # one sender, while its domain fails; see docs/adr/0014
    SENDER = "sender"
    PROVIDER = "provider"  # one sender at one receiver, or all senders at one mailbox provider
    WARMUP = "warmup"  # one identity at one mailbox provider; see docs/adr/0015
    ROUTE = "route"


class Receiver(Struct, frozen=True, order=True):
    """The destination that limits apply to: a mailbox provider, or a site or domain with limits of its own.

    As text: ``google``, ``google/domain.example.org``, ``other/site.mx.example.net/domain.example.org``.
    """

    provider: str
    site: str | None = None
    domain: str | None = None

    def __str__(self) -> str:
        return f"{self.provider}/{self.shaping_overrides}" if self.shaping_overrides else self.provider

    @property
    def shaping_overrides(self) -> str:
        """Its tables in shaping.toml, as ``site.NAME/domain.NAME``. Empty: it is a whole provider."""
        named = (("site", self.site), ("domain", self.domain))
        return "/".join(f"{level}.{name}" for level, name in named if name is not None)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse the text of a receiver.

        Args:
            text: As `str` returns it.

        Returns:
            The receiver. None: the text has a table of another level, or a table twice.
        """
        provider, *tables = text.split("/")
        names: dict[str, str] = {}
        for table in tables:
            level, _, name = table.partition(".")
            if level not in ("site", "domain") or level in names or not name:
                return None
            names[level] = name
        return cls(provider, names.get("site"), names.get("domain")) if provider else None


class SenderRoute(Struct, frozen=True):
    """A From address, and the name of the route that its mail takes. Empty: the settings no longer name the sender."""

    address: str
    route: str = ""


class GateName(Struct, frozen=True, kw_only=True):
    """The name of a gate.

    ``of``: the campaign, From address, route or identity; empty: all of them share the gate. ``receiver``: set for the
    kinds PROVIDER and WARMUP only.
    """

    kind: GateKind
    of: str = ""
    receiver: Receiver | None = None

    def __str__(self) -> str:
        parts = (self.kind.value, "" if self.receiver is None else str(self.receiver), self.of)
        return ":".join(part for part in parts if part)

    @classmethod
    def campaign(cls, campaign: str) -> Self:
        """Name the gate that limits one campaign."""
        return cls(kind=GateKind.CAMPAIGN, of=campaign)

    @classmethod
    def hold(cls, sender: str) -> Self:
        """Name the gate that is paused while a sender's domain fails. Other pauses of the sender use other gates."""
        return cls(kind=GateKind.HOLD, of=sender)

    @classmethod
    def sender(cls, sender: str) -> Self:
        """Name the gate that limits one From address."""
        return cls(kind=GateKind.SENDER, of=sender)

    @classmethod
    def at_receiver(cls, sender: str, receiver: Receiver) -> Self:
        """Name the gate that limits one From address at one receiver."""
        return cls(kind=GateKind.PROVIDER, of=sender, receiver=receiver)

    @classmethod
    def provider(cls, provider: str) -> Self:
        """Name the gate that limits all senders together at one mailbox provider."""
        return cls(kind=GateKind.PROVIDER, receiver=Receiver(provider))

    @classmethod
    def warmup(cls, provider: str, identity: str) -> Self:
        """Name the gate that enforces the cap of an identity. Unknown providers share one, `other`."""
        known = provider if provider in provider_table().names else OTHER_PROVIDERS
        return cls(kind=GateKind.WARMUP, of=identity, receiver=Receiver(known))

    @classmethod
    def route(cls, route: str) -> Self:
        """Name the gate that limits one route."""
        return cls(kind=GateKind.ROUTE, of=route)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse the text of a name.

        Args:
            text: As `str` returns it.

        Returns:
            The name. None: no lane of email has such a gate, so an operator made it.
        """
        kind, _, rest = text.partition(":")
        match kind:
            case "queue":
                name = cls(kind=GateKind.QUEUE)
            case "campaign" | "hold" | "sender" | "route":
                name = cls(kind=GateKind(kind), of=rest)
            case "provider" | "warmup":
                receiver, _, of = rest.partition(":")
                name = cls(kind=GateKind(kind), of=of, receiver=Receiver.parse(receiver))
                if name.receiver is None:
                    return None
            case _:
                return None
        shared = name.kind in (GateKind.QUEUE, GateKind.PROVIDER)
        return name if str(name) == text and (name.of or shared) else None


QUEUE_GATE = GateName(kind=GateKind.QUEUE)
"""The gate that limits all jobs of a queue."""


def kind_of(gate: str) -> GateKind | None:
    """Return the kind of a gate by its name as text. None: no lane of email has such a gate."""
    name = GateName.parse(gate)
    return None if name is None else name.kind
