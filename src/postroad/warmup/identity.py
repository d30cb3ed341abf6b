"""Identities that warm up: the addresses, domains and IP addresses by which receivers rate senders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from zoneinfo import ZoneInfo

from msgspec import Struct

from postroad.errors import ConfigError, unknown_name
from postroad.mail.address import ascii_domain
from postroad.settings import SenderSettings, Settings, WarmupSettings


class WarmingIdentity(Struct, frozen=True, kw_only=True):
    """An address, a domain or a source address that warms up, with the From addresses of its senders.

    ``known_as``: domains and IP addresses that mailbox providers use in their reports on these senders.
    """

    name: str
    senders: tuple[str, ...]
    warmup: WarmupSettings
    zone: ZoneInfo
    known_as: tuple[str, ...] = ()


def identities(settings: Settings) -> list[WarmingIdentity]:
    """Return every identity that warms up: addresses first, then domains and source addresses."""
    senders: dict[str, set[str]] = defaultdict(set)
    plans: dict[str, WarmupSettings] = {}
    known_as: dict[str, set[str]] = defaultdict(set)
    for sender in settings.senders.values():
        if sender.warmup is not None:
            for name in sender.identities:
                senders[name].add(sender.address)
                plans[name] = sender.warmup
                known_as[name].update(_known_as(sender))
    return [
        WarmingIdentity(
            name=name,
            senders=tuple(sorted(senders[name])),
            warmup=plans[name],
            zone=ZoneInfo(plans[name].zone or settings.time_zone),
            known_as=tuple(sorted(known_as[name])),
        )
        for name in sorted(senders, key=lambda name: "@" not in name)
    ]


def _known_as(sender: SenderSettings) -> Iterator[str]:
    """Yield the sender's domain, its parent domains and its public IP addresses.

    Parent domains, because Postmaster Tools includes subdomains in a domain's report.
    """
    labels = ascii_domain(sender.domain).lower().split(".")
    yield from (".".join(labels[start:]) for start in range(max(len(labels) - 1, 1)))
    addresses = (*sender.public_addresses, *([sender.source_address] if sender.source_address else []))
    yield from (str(ip_address(address)) for address in addresses)


def of_sender(settings: Settings, name: str) -> list[WarmingIdentity]:
    """Return the identities of one sender.

    Args:
        settings: The settings.
        name: Name of the sender in postroad.toml.

    Returns:
        Its identities, the narrowest first.

    Raises:
        ConfigError: The sender is not in postroad.toml, or does not warm up.
    """
    sender = settings.sender(name)
    if sender.warmup is None:
        raise ConfigError(
            f"sender {name} does not warm up",
            where=f"senders.{name}",
            remedy=f"Add a section [senders.{name}.warmup].",
        )
    return [identity for identity in identities(settings) if identity.name in sender.identities]


def group_by_senders(warming: Iterable[WarmingIdentity]) -> list[list[WarmingIdentity]]:
    """Group identities that have the same senders, such as an address and its domain. A group has one gate."""
    by_senders: dict[tuple[str, ...], list[WarmingIdentity]] = defaultdict(list)
    for identity in warming:
        by_senders[identity.senders].append(identity)
    return list(by_senders.values())


def group_of(warming: Sequence[WarmingIdentity], name: str) -> list[WarmingIdentity]:
    """Return an identity with those that share its senders, and so its gate.

    Args:
        warming: All identities that warm up.
        name: Name of the identity.

    Returns:
        The group.

    Raises:
        StateError: No identity of this name warms up.
    """
    for group in group_by_senders(warming):
        if any(identity.name == name for identity in group):
            return group
    fault = unknown_name("identity that warms up", name, [identity.name for identity in warming])
    raise fault


def identities_by_sender(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the names of the identities whose gates limit each sender, by From address, the narrowest first."""
    by_sender: dict[str, tuple[str, ...]] = {}
    for narrowest, *_ in group_by_senders(identities(settings)):
        for sender in narrowest.senders:
            by_sender[sender] = (*by_sender.get(sender, ()), narrowest.name)
    return by_sender
