"""Who warms up: what receivers know senders by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from zoneinfo import ZoneInfo

from msgspec import Struct

from postroad.errors import ConfigError
from postroad.settings import Settings, WarmupSettings


class Identity(Struct, frozen=True, kw_only=True):
    """An address, a domain or a source address that warms up, and the From addresses of the senders that share it."""

    name: str
    senders: tuple[str, ...]
    warmup: WarmupSettings
    zone: ZoneInfo


def identities(settings: Settings) -> list[Identity]:
    """Return every identity that warms up, the narrowest first: addresses, then domains and source addresses."""
    senders: dict[str, set[str]] = defaultdict(set)
    plans: dict[str, WarmupSettings] = {}
    for sender in settings.senders.values():
        if sender.warmup is not None:
            for name in sender.identities:
                senders[name].add(sender.address)
                plans[name] = sender.warmup
    return [
        Identity(
            name=name,
            senders=tuple(sorted(senders[name])),
            warmup=plans[name],
            zone=ZoneInfo(plans[name].zone or settings.time_zone),
        )
        for name in sorted(senders, key=lambda name: "@" not in name)
    ]


def of_sender(settings: Settings, name: str) -> list[Identity]:
    """Return the identities of one sender. Raises ConfigError for one that is not in postroad.toml, or is warm."""
    sender = settings.sender(name)
    if sender.warmup is None:
        raise ConfigError(
            f"sender {name} does not warm up",
            where=f"senders.{name}",
            remedy=f"Add a section [senders.{name}.warmup].",
        )
    return [identity for identity in identities(settings) if identity.name in sender.identities]


def together(found: Iterable[Identity]) -> list[list[Identity]]:
    """Put identities together that have the same senders, as an address and its domain: one gate holds for them."""
    by_senders: dict[tuple[str, ...], list[Identity]] = defaultdict(list)
    for identity in found:
        by_senders[identity.senders].append(identity)
    return list(by_senders.values())


def warming(settings: Settings) -> dict[str, tuple[str, ...]]:
    """By From address: the names of the identities whose gates hold a sender back, the narrowest first."""
    by_sender: dict[str, tuple[str, ...]] = {}
    for narrowest, *_ in together(identities(settings)):
        for sender in narrowest.senders:
            by_sender[sender] = (*by_sender.get(sender, ()), narrowest.name)
    return by_sender
