"""A route straight to the mail hosts of each domain: RFC 5321 §5.1, with DANE (RFC 7672) and MTA-STS (RFC 8461)."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from random import Random
from typing import assert_never

from postroad.clock import Clock
from postroad.delivery.destinations import Destinations
from postroad.delivery.outcome import NoMailHostError, UnreachableReason, classify_reply
from postroad.delivery.result import Pause
from postroad.delivery.sts_policies import StsPolicies
from postroad.dns.lookup import Lookup, LookupStatus
from postroad.dns.mta_sts import Policy, StsMode
from postroad.dns.mx import MailExchange, MailHosts, find_mail_hosts
from postroad.dns.providers import provider_for, site_of
from postroad.dns.resolver import Resolver
from postroad.dns.tlsa import NO_TLSA, HostCertificates, find_certificates
from postroad.gates.name import Receiver
from postroad.mail.address import domain_of
from postroad.settings import RouteSettings, TlsMode
from postroad.shaping.config import Shaping
from postroad.shaping.limits import LimitScope, SessionLimits, session_limits
from postroad.smtp.breaker import Breaker
from postroad.smtp.dane import TlsaAssociation
from postroad.smtp.endpoint import ANYWHERE, Endpoint, LocalBinding
from postroad.smtp.pools import Pools
from postroad.smtp.reply import Reply
from postroad.smtp.session import Sendable, TransportError

log = logging.getLogger(__name__)

MAX_HOSTS_TRIED = 5
"""Of one message at one time; it comes back later."""
MAX_BREAKERS = 10_000


class DirectRoute:
    """Sends to the mail hosts of the recipient's domain, the best that can be had."""

    is_relay = False

    def __init__(
        self,
        settings: RouteSettings,
        *,
        shaping: Shaping | None,
        resolver: Resolver,
        policies: StsPolicies,
        pools: Pools,
        clock: Clock,
        rng: Random,
        destinations: Destinations | None = None,
    ) -> None:
        self._settings = settings
        self._shaping = shaping  # None: what it says of receivers does not hold here
        self._terms: dict[LimitScope, SessionLimits] = {}
        self._resolver = resolver
        self._policies = policies
        self._pools = pools
        self._destinations = destinations or Destinations()
        self._hosts_within_s = settings.timeouts.opening_ms / 1000
        self._clock = clock
        self._rng = rng
        self._breakers: OrderedDict[str, Breaker] = OrderedDict()

    @property
    def breakers(self) -> Sequence[Breaker]:
        """Those of hosts that failed and have not answered since."""
        return [breaker for breaker in self._breakers.values() if not breaker.healthy]

    async def send(
        self, message: Sendable, before_body: Callable[[], Awaitable[None]], origin: LocalBinding = ANYWHERE
    ) -> Reply:
        """One transaction with some mail host. Raises ObstacleError when there is none to be had. See Session.send."""
        domain = domain_of(message.recipient)
        found = await find_mail_hosts(self._resolver, domain)
        names = self._in_order(found, origin)
        async with self._destinations.slot(site_of(domain, found.names)):
            return await self._send_to_best(names, found, message, before_body, origin)

    async def _send_to_best(
        self,
        names: Sequence[str],
        found: MailHosts,
        message: Sendable,
        before_body: Callable[[], Awaitable[None]],
        origin: LocalBinding,
    ) -> Reply:
        """One transaction with the first of these hosts that takes part in one."""
        domain = domain_of(message.recipient)
        policy = await self._policies.of(domain)
        terms = self._terms_of(found, origin)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._hosts_within_s
        obstacle: NoMailHostError | None = None
        for name in names[:MAX_HOSTS_TRIED]:
            if obstacle is not None and loop.time() >= until_s:
                break  # Slow hosts would take the time of all hosts together. The message comes back later.
            try:
                endpoint = await self._endpoint(name, found, policy, origin, terms)
                reply = await self._send_to(endpoint, message, before_body)
            except NoMailHostError as error:
                obstacle = error if obstacle is None else _worse(obstacle, error)
                continue
            if classify_reply(reply, deferrals=0).pause is Pause.ROUTE:
                # Of a relay it would mean that nothing goes there; here it is one domain's host that wants a login.
                raise NoMailHostError(UnreachableReason.HOSTS_DOWN, f"{endpoint.name}: {reply}", reply=reply)
            return reply
        raise obstacle or NoMailHostError(UnreachableReason.HOSTS_DOWN, f"{domain} has no mail host that can be tried")

    def _in_order(self, found: MailHosts, origin: LocalBinding) -> list[str]:
        match found.exchange:
            case MailExchange.HOSTS:
                names = found.in_order(self._rng, _own_names(self._settings.helo, origin.helo))
                if not names:
                    raise NoMailHostError(
                        UnreachableReason.LOOP, f"{found.domain} names this machine as its best mail host"
                    )
                return names
            case MailExchange.NULL:
                raise NoMailHostError(UnreachableReason.TAKES_NO_MAIL, f"{found.domain}: {found.why}")
            case MailExchange.NONE:
                raise NoMailHostError(UnreachableReason.NO_SUCH_DOMAIN, f"{found.domain}: {found.why}")
            case MailExchange.UNKNOWN:
                raise NoMailHostError(UnreachableReason.NO_ANSWER, f"no answer about {found.domain}: {found.why}")
            case other:
                assert_never(other)

    async def _endpoint(
        self, host: str, found: MailHosts, policy: Policy | None, origin: LocalBinding, terms: SessionLimits
    ) -> Endpoint:
        """Where a mail host is, and how it is to be spoken to. Raises ObstacleError."""
        lookups = await self._resolver.addresses(host)
        # The session connects to these addresses, and asks no resolver again.
        addresses = self._addresses(host, lookups)
        settings = self._settings
        certificates = NO_TLSA
        if found.secure:  # RFC 7672 §2.2.1: what an unsigned MX leads to is not vouched for by anybody
            certificates = await find_certificates(self._resolver, host, settings.port, lookups)
        if not certificates.answered:
            why = f"no answer about the certificates of {host}: {certificates.why}"
            raise NoMailHostError(UnreachableReason.NO_ANSWER, why)
        tls, verify, tlsa = self._protection(host, certificates, policy, terms)
        return Endpoint(
            host=host,
            port=settings.port,
            addresses=addresses,
            origin=LocalBinding(source_address=origin.source_address, helo=origin.helo or settings.helo),
            tls=tls,
            verify_certificate=verify,
            ca_file=settings.ca_file,
            client_certificate=settings.client_certificate,
            client_key=settings.client_key,
            tlsa=tlsa,
            connections=terms.connections,
            messages_per_connection=terms.messages_per_connection,
        )

    def _protection(
        self, host: str, certificates: HostCertificates, policy: Policy | None, terms: SessionLimits
    ) -> tuple[TlsMode, bool, tuple[TlsaAssociation, ...]]:
        settings = self._settings
        if certificates.records:
            records = [
                TlsaAssociation(r.usage, r.selector, r.matching_type, r.association) for r in certificates.records
            ]
            # RFC 7672 §2.2: records that none can use still say that there is TLS. RFC 8461 §2: DANE goes first.
            return TlsMode.STARTTLS, False, tuple(sorted(record for record in records if record.usable))
        if policy is not None and policy.mode is not StsMode.NONE:
            covered = policy.covers(host)
            if policy.mode is StsMode.ENFORCE:
                if not covered:
                    raise NoMailHostError(
                        UnreachableReason.POLICY, f"{host} is no mail host of the domain's MTA-STS policy"
                    )
                return TlsMode.STARTTLS, True, ()
            if not covered:
                log.warning("%s is no mail host of the domain's MTA-STS policy, which is in testing", host)
        # A receiver that asks for encryption asks for no name on it: nobody has vouched for that of the host.
        return terms.tls, settings.verify_certificate and settings.tls is TlsMode.STARTTLS, ()

    def _terms_of(self, found: MailHosts, origin: LocalBinding) -> SessionLimits:
        """What holds for a sender at the hosts that a domain has now, whoever it was thought to be of before."""
        settings = self._settings
        if self._shaping is None:
            return session_limits(settings, None)
        provider, site = provider_for(found.domain, found.names)
        # Few have tables of their own; all others of a provider are one entry.
        named_site = site if site in self._shaping.site else None
        named_domain = found.domain if found.domain in self._shaping.domain else None
        scope = LimitScope(sender=origin.sender or "", receiver=Receiver(provider, named_site, named_domain))
        terms = self._terms.get(scope)
        if terms is None:
            terms = self._terms[scope] = session_limits(settings, self._shaping.limits(scope))
        return terms

    async def _send_to(
        self, endpoint: Endpoint, message: Sendable, before_body: Callable[[], Awaitable[None]]
    ) -> Reply:
        breaker = self._breaker(endpoint.name)
        if not breaker.begin():
            raise NoMailHostError(UnreachableReason.HOSTS_DOWN, f"{endpoint.name} is left alone for now")
        try:
            reply = await self._pools.of(endpoint).send(message, before_body)
        except TransportError as error:
            if not error.before_mail:
                if error.late_s is None:
                    breaker.succeeded()
                else:
                    breaker.failed(str(error))
                raise
            breaker.failed(str(error))
            raise NoMailHostError(
                UnreachableReason.HOSTS_DOWN, f"{endpoint.name}: {error}", reply=error.reply
            ) from None
        except BaseException:
            breaker.gave_up()
            raise
        breaker.succeeded()
        return reply

    def _addresses(self, host: str, lookups: tuple[Lookup, Lookup]) -> tuple[str, ...]:
        """Return the addresses of a mail host that mail may go to. Raises ObstacleError when there is none."""
        # Receivers ask more of what comes by IPv6 (PTR, above all): it is tried second.
        found = [*sorted(lookups[0].addresses), *sorted(lookups[1].addresses)]
        addresses = tuple(address for address in found if self._destinations.may_connect(address))
        if addresses:
            return addresses
        if found:
            why = f"{host}, a mail host of the domain, has no public address: {', '.join(found[:3])}"
            raise NoMailHostError(UnreachableReason.NOT_PUBLIC, why)
        if LookupStatus.NO_ANSWER in (lookups[0].status, lookups[1].status):
            raise NoMailHostError(
                UnreachableReason.NO_ANSWER, f"no answer about {host}: {lookups[0].why or lookups[1].why}"
            )
        raise NoMailHostError(UnreachableReason.NO_SUCH_HOST, f"{host}, a mail host of the domain, has no address")

    def _breaker(self, name: str) -> Breaker:
        breaker = self._breakers.get(name)
        if breaker is None:
            breaker = self._breakers[name] = Breaker(name, self._clock)
            if len(self._breakers) > MAX_BREAKERS:
                self._breakers.popitem(last=False)
        self._breakers.move_to_end(name)
        return breaker


def _own_names(*names: str | None) -> Collection[str]:
    return {name.lower() for name in names if name is not None}


def _worse(first: NoMailHostError, second: NoMailHostError) -> NoMailHostError:
    """Of two hosts' obstacles, the one that may pass: while one host may come back, nothing is final."""
    if first.kind in (UnreachableReason.NO_SUCH_HOST, UnreachableReason.NOT_PUBLIC):
        return second
    # What one of them said is for the shaping to hear.
    return second if first.reply is None and second.reply is not None else first
