"""Finds the mail hosts of a domain (RFC 5321 §5.1, RFC 7505)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from random import Random

from postroad.dns.lookup import Lookup, LookupStatus
from postroad.dns.record import Mx
from postroad.dns.resolver import Resolver

MAX_HOSTS = 20


class MailExchange(StrEnum):
    """Whether a domain accepts mail."""

    HOSTS = "hosts"
    NULL = "null MX"  # RFC 7505: the domain accepts no mail
    NONE = "none"  # no such domain, or neither MX nor address
    UNKNOWN = "unknown"  # DNS gave no answer


@dataclass(frozen=True, kw_only=True)
class MailHosts:
    """The mail hosts of a domain.

    Attributes:
        domain: The domain.
        exchange: Whether it accepts mail.
        hosts: Preference and name of each host.
        implicit: Whether the domain has no MX record but an address (RFC 5321 §5.1).
        secure: Whether DNSSEC validates the list.
        ttl_s: How long the result may be cached, in seconds.
        why: Why there is no mail host.
    """

    domain: str
    exchange: MailExchange
    hosts: tuple[tuple[int, str], ...] = ()
    implicit: bool = False
    secure: bool = False
    ttl_s: int = 0
    why: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The distinct names of the hosts in alphabetical order, which identify a site."""
        return tuple(sorted({name for _, name in self.hosts}))

    def in_order(self, rng: Random, own_names: Collection[str] = ()) -> list[str]:
        """Return the hosts in the order in which to try them (RFC 5321 §5.1).

        If one of our own names is among the hosts, it is omitted, with all hosts of the same or a worse preference,
        to avoid a mail loop.

        Args:
            rng: Shuffles hosts of equal preference.
            own_names: Names of this machine.

        Returns:
            The names, the best preference first.
        """
        ours = [preference for preference, name in self.hosts if name in own_names]
        usable = sorted((p, n) for p, n in self.hosts if not ours or p < min(ours))
        return [name for _, equal in groupby(usable, key=lambda host: host[0]) for name in _shuffled(equal, rng)]


def _shuffled(equal: Iterator[tuple[int, str]], rng: Random) -> list[str]:
    names = [name for _, name in equal]
    rng.shuffle(names)
    return names


async def find_mail_hosts(resolver: Resolver, domain: str) -> MailHosts:
    """Look up the mail hosts of a domain in ASCII."""
    answer = await resolver.lookup(domain, "MX")
    match answer.status:
        case LookupStatus.RECORDS:
            return _of_records(domain, answer)
        case LookupStatus.NO_RECORD:
            # Only in this case: if there is an MX record, an address does not replace it (RFC 5321 §5.1).
            return await _implicit(resolver, answer)
        case LookupStatus.NO_NAME:
            return MailHosts(
                domain=domain,
                exchange=MailExchange.NONE,
                secure=answer.secure,
                ttl_s=answer.ttl_s,
                why=answer.why or "there is no such domain",
            )
        case LookupStatus.NO_ANSWER:
            return MailHosts(domain=domain, exchange=MailExchange.UNKNOWN, ttl_s=answer.ttl_s, why=answer.why)


def _of_records(domain: str, answer: Lookup) -> MailHosts:
    hosts = [(record.preference, record.exchange.lower()) for record in answer.records if isinstance(record, Mx)]
    named = [(preference, name) for preference, name in hosts if name]
    if not named:
        return MailHosts(
            domain=domain,
            exchange=MailExchange.NULL,
            secure=answer.secure,
            ttl_s=answer.ttl_s,
            why="it has a null MX: it accepts no mail",
        )
    # RFC 7505 §3 forbids a null MX together with other records. The others are used.
    best = tuple(sorted(named)[:MAX_HOSTS])
    return MailHosts(domain=domain, exchange=MailExchange.HOSTS, hosts=best, secure=answer.secure, ttl_s=answer.ttl_s)


async def _implicit(resolver: Resolver, mx: Lookup) -> MailHosts:
    domain = mx.name
    four, six = await resolver.addresses(domain)
    ttl_s = min(mx.ttl_s, four.ttl_s, six.ttl_s)
    secure = mx.secure and four.secure and six.secure
    if LookupStatus.RECORDS in (four.status, six.status):
        host = (mx.canonical or domain).lower()
        return MailHosts(
            domain=domain, exchange=MailExchange.HOSTS, hosts=((0, host),), implicit=True, secure=secure, ttl_s=ttl_s
        )
    if LookupStatus.NO_ANSWER in (four.status, six.status):
        return MailHosts(domain=domain, exchange=MailExchange.UNKNOWN, ttl_s=ttl_s, why=four.why or six.why)
    return MailHosts(
        domain=domain,
        exchange=MailExchange.NONE,
        secure=secure,
        ttl_s=ttl_s,
        why="it has neither a mail host nor an address",
    )
