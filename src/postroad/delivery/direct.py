"""Sends directly to the mail hosts of each domain: RFC 5321 §5.1, with DANE (RFC 7672) and MTA-STS (RFC 8461)."""

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
from postroad.dns.mta_sts import MtaStsPolicy, StsMode
from postroad.dns.mx import MailExchange, MailHosts, find_mail_hosts
from postroad.dns.providers import provider_for, site_of
from postroad.dns.tlsa import NO_TLSA, HostCertificates, find_certificates
from postroad.gates.name import Receiver
from postroad.mail.address import domain_of
from postroad.settings import RouteSettings, TlsMode
from postroad.shaping.config import Shaping
from postroad.shaping.limits import LimitScope, SessionLimits, session_limits
from postroad.smtp.breaker import Breaker
from postroad.smtp.dane import TlsaAssociation
from postroad.smtp.endpoint import ANYWHERE, Endpoint, LocalBinding
from postroad.smtp.errors import TransportError
from postroad.smtp.pools import Pools
from postroad.smtp.reply import Reply
from postroad.smtp.session import Sendable

log = logging.getLogger(__name__)

MAX_HOSTS_TRIED = 5
"""Hosts that one attempt of a message tries. A later attempt tries again."""
MAX_BREAKERS = 10_000


class DirectRoute:
    """Sends to the most preferred mail host of the recipient's domain that is reachable."""

    is_relay = False

    def __init__(
        self,
        settings: RouteSettings,
        *,
        shaping: Shaping | None,
        policies: StsPolicies,
        pools: Pools,
        clock: Clock,
        rng: Random,
        destinations: Destinations | None = None,
    ) -> None:
        """Make the route. No connection is made yet.

        Args:
            settings: Settings of the route.
            shaping: Limits of receivers. None: they do not apply to this route.
            policies: MTA-STS policies. Mail hosts are looked up with their resolver.
            pools: Connections of the route.
            clock: The clock.
            rng: Chooses among equally preferred hosts.
            destinations: Limits of destinations. None: the default ones.
        """
        self._settings = settings
        self._shaping = shaping
        self._limits: dict[LimitScope, SessionLimits] = {}
        self._resolver = policies.resolver
        self._policies = policies
        self._pools = pools
        self._destinations = destinations or Destinations()
        self._hosts_within_s = settings.timeouts.opening_ms / 1000
        self._clock = clock
        self._rng = rng
        self._breakers: OrderedDict[str, Breaker] = OrderedDict()

    @property
    def breakers(self) -> Sequence[Breaker]:
        """Circuit breakers of the hosts that failed and have not replied since."""
        return [breaker for breaker in self._breakers.values() if not breaker.healthy]

    async def send(
        self, message: Sendable, before_body: Callable[[], Awaitable[None]], origin: LocalBinding = ANYWHERE
    ) -> Reply:
        """Send a message to a mail host of its recipient's domain.

        Args:
            message: The message.
            before_body: Called before the body is sent, see `Session.send`.
            origin: Local address and HELO name to send from.

        Returns:
            The final reply of the host.

        Raises:
            NoMailHostError: No mail host could be reached, so no transaction was started.
            TransportError: The connection failed during the transaction.
        """
        domain = domain_of(message.recipient)
        hosts = await find_mail_hosts(self._resolver, domain)
        names = self._in_order(hosts, origin)
        async with self._destinations.slot(site_of(domain, hosts.names)):
            return await self._send_to_best(names, hosts, message, before_body, origin)

    async def _send_to_best(
        self,
        names: Sequence[str],
        hosts: MailHosts,
        message: Sendable,
        before_body: Callable[[], Awaitable[None]],
        origin: LocalBinding,
    ) -> Reply:
        domain = domain_of(message.recipient)
        policy = await self._policies.of(domain)
        limits = self._session_limits(hosts, origin)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._hosts_within_s
        failure: NoMailHostError | None = None
        for name in names[:MAX_HOSTS_TRIED]:
            if failure is not None and loop.time() >= until_s:
                break  # All hosts share one timeout, so that slow hosts do not multiply it. A retry follows later.
            try:
                endpoint = await self._endpoint(name, hosts, policy, origin, limits)
                reply = await self._send_to(endpoint, message, before_body)
            except NoMailHostError as error:
                failure = error if failure is None else _more_transient(failure, error)
                continue
            if classify_reply(reply, deferrals=0).pause is Pause.ROUTE:
                # A relay that asks for authentication blocks its route. Here it is only the host of one domain.
                raise NoMailHostError(UnreachableReason.HOSTS_DOWN, f"{endpoint.name}: {reply}", reply=reply)
            return reply
        raise failure or NoMailHostError(UnreachableReason.HOSTS_DOWN, f"{domain} has no mail host that can be tried")

    def _in_order(self, hosts: MailHosts, origin: LocalBinding) -> list[str]:
        match hosts.exchange:
            case MailExchange.HOSTS:
                names = hosts.in_order(self._rng, _own_names(self._settings.helo, origin.helo))
                if not names:
                    raise NoMailHostError(
                        UnreachableReason.LOOP, f"{hosts.domain} names this machine as its best mail host"
                    )
                return names
            case MailExchange.NULL:
                raise NoMailHostError(UnreachableReason.TAKES_NO_MAIL, f"{hosts.domain}: {hosts.why}")
            case MailExchange.NONE:
                raise NoMailHostError(UnreachableReason.NO_SUCH_DOMAIN, f"{hosts.domain}: {hosts.why}")
            case MailExchange.UNKNOWN:
                raise NoMailHostError(UnreachableReason.NO_ANSWER, f"no answer about {hosts.domain}: {hosts.why}")
            case other:
                assert_never(other)

    async def _endpoint(
        self, host: str, hosts: MailHosts, policy: MtaStsPolicy | None, origin: LocalBinding, limits: SessionLimits
    ) -> Endpoint:
        lookups = await self._resolver.addresses(host)
        # The session connects to these addresses without another lookup.
        addresses = self._addresses(host, lookups)
        settings = self._settings
        certificates = NO_TLSA
        if hosts.secure:  # RFC 7672 §2.2.1: TLSA records only count after a signed MX record
            certificates = await find_certificates(self._resolver, host, settings.port, lookups)
        if not certificates.answered:
            why = f"no answer about the certificates of {host}: {certificates.why}"
            raise NoMailHostError(UnreachableReason.NO_ANSWER, why)
        tls, verify, tlsa = self._protection(host, certificates, policy, limits)
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
            connections=limits.connections,
            messages_per_connection=limits.messages_per_connection,
        )

    def _protection(
        self, host: str, certificates: HostCertificates, policy: MtaStsPolicy | None, limits: SessionLimits
    ) -> tuple[TlsMode, bool, tuple[TlsaAssociation, ...]]:
        settings = self._settings
        if certificates.records:
            records = [
                TlsaAssociation(r.usage, r.selector, r.matching_type, r.association) for r in certificates.records
            ]
            # RFC 7672 §2.2: unusable records still require TLS. RFC 8461 §2: DANE takes precedence.
            return TlsMode.STARTTLS, False, tuple(sorted(record for record in records if record.usable))
        if policy is not None and policy.mode is not StsMode.NONE:
            covered = policy.covers(host)
            if policy.mode is StsMode.ENFORCE:
                if not covered:
                    raise NoMailHostError(UnreachableReason.POLICY, f"{host} is not in the domain's MTA-STS policy")
                return TlsMode.STARTTLS, True, ()
            if not covered:
                log.warning("%s is not in the domain's MTA-STS policy, which is in testing mode", host)
        # `tls = "required"` of shaping asks for encryption only: no source vouches for the host name.
        return limits.tls, settings.verify_certificate and settings.tls is TlsMode.STARTTLS, ()

    def _session_limits(self, hosts: MailHosts, origin: LocalBinding) -> SessionLimits:
        """Return the limits of a sender at the current hosts of a domain, whatever provider it had at submission."""
        settings = self._settings
        if self._shaping is None:
            return session_limits(settings, None)
        provider, site = provider_for(hosts.domain, hosts.names)
        # Few sites and domains have a table. All others of a provider share one cache entry.
        named_site = site if site in self._shaping.site else None
        named_domain = hosts.domain if hosts.domain in self._shaping.domain else None
        scope = LimitScope(sender=origin.sender or "", receiver=Receiver(provider, named_site, named_domain))
        limits = self._limits.get(scope)
        if limits is None:
            limits = self._limits[scope] = session_limits(settings, self._shaping.limits(scope))
        return limits

    async def _send_to(
        self, endpoint: Endpoint, message: Sendable, before_body: Callable[[], Awaitable[None]]
    ) -> Reply:
        breaker = self._breaker(endpoint.name)
        if not breaker.allow():
            raise NoMailHostError(UnreachableReason.HOSTS_DOWN, f"{endpoint.name} is not tried, after failures")
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
            breaker.release()
            raise
        breaker.succeeded()
        return reply

    def _addresses(self, host: str, lookups: tuple[Lookup, Lookup]) -> tuple[str, ...]:
        # IPv6 is tried second: receivers have more requirements for it, such as a PTR record.
        published = [*sorted(lookups[0].addresses), *sorted(lookups[1].addresses)]
        addresses = tuple(address for address in published if self._destinations.may_connect(address))
        if addresses:
            return addresses
        if published:
            why = f"{host}, a mail host of the domain, has no public address: {', '.join(published[:3])}"
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


def _more_transient(first: NoMailHostError, second: NoMailHostError) -> NoMailHostError:
    """Return the failure that a retry is more likely to fix. A message only fails for good if all hosts do."""
    if first.kind in (UnreachableReason.NO_SUCH_HOST, UnreachableReason.NOT_PUBLIC):
        return second
    # Shaping evaluates the reply of a host.
    return second if first.reply is None and second.reply is not None else first
