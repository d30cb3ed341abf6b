"""Maps domains to mailbox providers by their mail hosts (providers.toml)."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files

import msgspec

OTHER_PROVIDERS = "other"
"""The provider of all domains that belong to no known provider."""


MAX_SITE = 255
"""Maximum length of the name of a site, which the database and the gates can store."""

# Characters that the name of a gate cannot contain. A name in DNS may contain any octet.
_ODD = re.compile(r"[\s/:]")


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A provider in providers.toml."""

    mail_hosts: tuple[str, ...]
    domains: tuple[str, ...] = ()


class ProviderTable:
    """Providers by their mail hosts and their well-known domains."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self.names = frozenset(providers)
        self._suffixes = {suffix: name for name, provider in providers.items() for suffix in provider.mail_hosts}
        self._domains = {domain: name for name, provider in providers.items() for domain in provider.domains}

    def of_domain(self, domain: str) -> str | None:
        """Return the provider of a well-known domain."""
        return self._domains.get(domain)

    def of_hosts(self, hosts: Iterable[str]) -> str:
        """Return the provider to which all these mail hosts belong, else `other`."""
        names = {self._of_host(host) for host in hosts}
        return names.pop() if len(names) == 1 else OTHER_PROVIDERS

    def _of_host(self, host: str) -> str:
        # Every suffix begins with a dot: `.google.com` does not match `evilgoogle.com`.
        labels = f".{host}".split(".")[1:]
        for start in range(len(labels)):
            name = self._suffixes.get("." + ".".join(labels[start:]))
            if name is not None:
                return name
        return OTHER_PROVIDERS


@cache
def provider_table() -> ProviderTable:
    """Return the table that is part of the package."""
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
    """Return the name of the site of a domain: readable, and the same for all domains with the same mail hosts.

    Args:
        domain: The domain, whose name is used if it has no mail host.
        hosts: The distinct names of the mail hosts, sorted.

    Returns:
        The name, of at most `MAX_SITE` characters.
    """
    match hosts:
        case ():
            return domain
        case (host,) if len(host) <= MAX_SITE and _ODD.search(host) is None:
            return host
        case _:
            suffix = f"+{hashlib.sha256(' '.join(hosts).encode()).hexdigest()[:8]}"
            return _ODD.sub("-", hosts[0])[: MAX_SITE - len(suffix)] + suffix


def provider_for(domain: str, hosts: tuple[str, ...]) -> tuple[str, str]:
    """Return the provider and the site of a domain. For a well-known domain, both are the provider's name."""
    well_known = provider_table().of_domain(domain)
    if well_known is not None:
        return well_known, well_known
    return provider_table().of_hosts(hosts) if hosts else OTHER_PROVIDERS, site_of(domain, hosts)
