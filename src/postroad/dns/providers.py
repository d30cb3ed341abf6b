"""Which mailbox provider is behind a domain: the roll-up of its mail hosts (providers.toml)."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files

import msgspec

OTHER_PROVIDERS = "other"
"""The provider of all domains that are no known provider's."""


MAX_SITE = 255
"""Characters in the name of a site: the store and the gates have room for it."""

# What a gate's name cannot have in it, nor a mail host that is one: DNS carries any octet.
_ODD = re.compile(r"[\s/:]")


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of providers.toml."""

    mail_hosts: tuple[str, ...]
    domains: tuple[str, ...] = ()


class ProviderTable:
    """Providers by their mail hosts and best known domains."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self.names = frozenset(providers)
        self._suffixes = {suffix: name for name, found in providers.items() for suffix in found.mail_hosts}
        self._domains = {domain: name for name, found in providers.items() for domain in found.domains}

    def of_domain(self, domain: str) -> str | None:
        """Provider of a domain that everybody knows."""
        return self._domains.get(domain)

    def of_hosts(self, hosts: Iterable[str]) -> str:
        """Provider that all these mail hosts are of; else `other`."""
        names = {self._of_host(host) for host in hosts}
        return names.pop() if len(names) == 1 else OTHER_PROVIDERS

    def _of_host(self, host: str) -> str:
        # Every suffix begins with a dot: `.google.com` is none of `evilgoogle.com`.
        labels = f".{host}".split(".")[1:]
        for start in range(len(labels)):
            name = self._suffixes.get("." + ".".join(labels[start:]))
            if name is not None:
                return name
        return OTHER_PROVIDERS


@cache
def provider_table() -> ProviderTable:
    """The table that is shipped."""
    text = (files("postroad.dns") / "providers.toml").read_text("utf-8")
    return ProviderTable(msgspec.convert(tomllib.loads(text), dict[str, Provider]))


def provider_of(domain: str, stored: str | None) -> str:
    """Return the mailbox provider whose limits hold for mail to a domain.

    Args:
        domain: The recipient's domain.
        stored: Provider that DNS gave for it last. None: unknown.

    Returns:
        A name of providers.toml, or `OTHER_PROVIDERS`.
    """
    provider = provider_table().of_domain(domain) or stored
    return provider if provider in provider_table().names else OTHER_PROVIDERS


def site_of(domain: str, hosts: tuple[str, ...]) -> str:
    """Name of the site that these mail hosts are: readable, and the same for every domain that has them.

    It has `MAX_SITE` characters at the most, whatever DNS said.
    """
    match hosts:
        case ():
            return domain
        case (host,) if len(host) <= MAX_SITE and _ODD.search(host) is None:
            return host
        case _:
            end = f"+{hashlib.sha256(' '.join(hosts).encode()).hexdigest()[:8]}"
            return _ODD.sub("-", hosts[0])[: MAX_SITE - len(end)] + end


def provider_for(domain: str, hosts: tuple[str, ...]) -> tuple[str, str]:
    """Return the provider and the site of a domain with these mail hosts. A well-known domain is both itself."""
    well_known = provider_table().of_domain(domain)
    if well_known is not None:
        return well_known, well_known
    return provider_table().of_hosts(hosts) if hosts else OTHER_PROVIDERS, site_of(domain, hosts)
