"""Evaluates SPF: check_host() of RFC 7208, with all its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import assert_never

from postroad.dns.lookup import Lookup, LookupStatus, parse_name
from postroad.dns.record import Kind as RecordKind
from postroad.dns.record import Mx, Pointer
from postroad.dns.resolver import Resolver
from postroad.dns.spf_macro import MacroError, MacroString, dotted_address, expand, parse_macros, truncate_name
from postroad.dns.spf_record import Mechanism, MechanismKind, Qualifier, SpfRecord, SpfSyntaxError, is_spf, parse_spf
from postroad.dns.tags import texts, unanswered_reason

MAX_LOOKUPS = 10
MAX_VOID_LOOKUPS = 2
MAX_NAMES = 10
"""Maximum number of names of one `mx` or `ptr` (RFC 7208 §4.6.4)."""
DEADLINE_S = 20.0
"""RFC 7208 §4.6.4: at least 20 s, then the result is temperror."""
SURVEY_LOOKUPS = 60
"""Maximum number of lookups of a survey, which ends a loop of includes."""


class SpfResult(StrEnum):
    """The result of a check (RFC 7208 §2.6)."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105  (a word, and no secret)
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


_OF_QUALIFIER = {
    Qualifier.PASS: SpfResult.PASS,
    Qualifier.FAIL: SpfResult.FAIL,
    Qualifier.SOFTFAIL: SpfResult.SOFTFAIL,
    Qualifier.NEUTRAL: SpfResult.NEUTRAL,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SpfInput:
    """The input of a check (RFC 7208 §4.1).

    Attributes:
        ip: The address of the sending host.
        sender: The return path, with or without local part.
        helo: The name in EHLO.
        receiver: The name of the checking host, for macros.
        now_s: The time in seconds since the epoch, for macros.
    """

    ip: IPv4Address | IPv6Address
    sender: str
    helo: str = "unknown"
    receiver: str = "unknown"
    now_s: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SpfOutcome:
    """The outcome of a check.

    Attributes:
        result: The result.
        why: The term that decided, or the error.
        explanation: The domain's explanation of a fail (RFC 7208 §6.2).
        lookups: The number of DNS lookups that count (RFC 7208 §4.6.4).
        void_lookups: The number of lookups without a record.
    """

    result: SpfResult
    why: str = ""
    explanation: str | None = None
    lookups: int = 0
    void_lookups: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """The cost and the content of a policy, evaluated completely.

    Attributes:
        outcome: The outcome for a host that no mechanism matches, without the limits.
        records: Domain and record, of the domain and of those that it includes or redirects to.
        last: Domain and record whose `all` matches such a host. None: there is no `all`, or it is not reached.
    """

    outcome: SpfOutcome
    records: tuple[tuple[str, SpfRecord], ...]
    last: tuple[str, SpfRecord] | None


class _TemporaryError(Exception):
    pass


class _PermanentError(Exception):
    pass


async def check_host(resolver: Resolver, mail: SpfInput, domain: str) -> SpfOutcome:
    """Evaluate the policy of a domain for mail (RFC 7208 §4). Errors of DNS are results, too."""
    return await _evaluate(_Check(resolver, mail), domain)


async def survey(resolver: Resolver, domain: str) -> Survey:
    """Evaluate a domain's policy completely, as if no mechanism matched, to determine its cost and its records."""
    check = _Check(resolver, SpfInput(ip=IPv4Address("192.0.2.0"), sender=f"postmaster@{domain}"), surveying=True)
    outcome = await _evaluate(check, domain)
    return Survey(outcome=outcome, records=tuple(check.records), last=check.decided)


async def _evaluate(check: _Check, domain: str) -> SpfOutcome:
    explanation: str | None = None
    result, why = SpfResult.TEMPERROR, f"no result within {DEADLINE_S:g} s"
    try:
        async with asyncio.timeout(DEADLINE_S):
            result, why, check.decided = await check.domain(domain)
            if result is SpfResult.FAIL and check.decided is not None and not check.surveying:
                explanation = await check.explain(*check.decided)
    except TimeoutError:
        pass
    except _TemporaryError as error:
        result, why = SpfResult.TEMPERROR, str(error)
    except _PermanentError as error:
        result, why = SpfResult.PERMERROR, str(error)
    return SpfOutcome(
        result=result, why=why, explanation=explanation, lookups=check.lookups, void_lookups=check.void_lookups
    )


_Evaluation = tuple[SpfResult, str, tuple[str, SpfRecord] | None]
"""The result, the term that decided, and the domain and record with the explanation."""


class _Check:
    """One evaluation, with its counts of lookups. ``surveying``: evaluate all terms as if none matched."""

    def __init__(self, resolver: Resolver, mail: SpfInput, *, surveying: bool = False) -> None:
        ip = mail.ip
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        self.ip = ip
        self.surveying = surveying
        self.lookups = 0
        self.void_lookups = 0
        self.records: list[tuple[str, SpfRecord]] = []
        self.decided: tuple[str, SpfRecord] | None = None
        self._resolver = resolver
        self._mail = mail
        self._local, _, self._sender_domain = mail.sender.rpartition("@")
        self._local = self._local or "postmaster"  # §4.3

    async def domain(self, domain: str) -> _Evaluation:
        """Evaluate check_host() for a domain: the first one, or one that it includes or redirects to."""
        domain = domain.removesuffix(".")
        if not _is_domain(domain):
            return SpfResult.NONE, f"{domain!r} is not a domain", None
        record = await self._record(domain)
        if record is None:
            return SpfResult.NONE, f"{domain} has no SPF record", None
        self.records.append((domain, record))
        for mechanism in record.mechanisms:
            if await self._matches(mechanism, domain) and not (
                self.surveying and mechanism.kind is not MechanismKind.ALL
            ):
                return _OF_QUALIFIER[mechanism.qualifier], f"{mechanism.text} of {domain}", (domain, record)
        if record.redirect is None:
            return SpfResult.NEUTRAL, f"no mechanism of {domain} matches", None
        self._count_lookup()
        target = await self._expand(record.redirect, domain)
        result, why, decided = await self.domain(target)
        if result is SpfResult.NONE:
            raise _PermanentError(f"redirect of {domain}: {why}")  # §6.1
        return result, why, decided

    async def _record(self, domain: str) -> SpfRecord | None:
        answer = await self._ask(domain, "TXT", void=False)
        records = [text for text in texts(answer) if is_spf(text)]
        if len(records) > 1:
            raise _PermanentError(f"{domain} has {len(records)} SPF records")
        if not records:
            return None
        if not records[0].isascii():
            raise _PermanentError(f"the SPF record of {domain} is not ASCII")
        try:
            return parse_spf(records[0])
        except SpfSyntaxError as error:
            raise _PermanentError(f"the SPF record of {domain}: {error}") from None

    async def _matches(self, mechanism: Mechanism, domain: str) -> bool:
        if mechanism.kind.looks_up:
            self._count_lookup()
        if self.surveying and mechanism.domain is not None and mechanism.domain.letters - {"d"}:
            return False  # Its target depends on the message.
        match mechanism.kind:
            case MechanismKind.ALL:
                return True
            case MechanismKind.IP4 | MechanismKind.IP6:
                return mechanism.network is not None and self.ip in mechanism.network
            case MechanismKind.INCLUDE:
                return await self._includes(mechanism, domain)
            case MechanismKind.A:
                return self._covers(mechanism, await self._addresses(await self._target(mechanism, domain)))
            case MechanismKind.MX:
                return await self._is_mail_host(mechanism, domain)
            case MechanismKind.EXISTS:
                answer = await self._ask(await self._target(mechanism, domain), "A")
                return answer.status is LookupStatus.RECORDS
            case MechanismKind.PTR:
                target = await self._target(mechanism, domain)
                return any(_is_below(name, target) for name in await self._validated_names())
            case other:
                assert_never(other)

    async def _includes(self, mechanism: Mechanism, domain: str) -> bool:
        target = await self._target(mechanism, domain)
        result, why, _ = await self.domain(target)
        if result is SpfResult.NONE:
            raise _PermanentError(f"{mechanism.text} of {domain}: {why}")  # §5.2
        return result is SpfResult.PASS

    async def _is_mail_host(self, mechanism: Mechanism, domain: str) -> bool:
        answer = await self._ask(await self._target(mechanism, domain), "MX")
        hosts = [r.exchange for r in answer.records if isinstance(r, Mx)]
        if len(hosts) > MAX_NAMES:
            raise _PermanentError(f"{mechanism.text} of {domain} has {len(hosts)} mail hosts; {MAX_NAMES} are allowed")
        for host in hosts:
            if self._covers(mechanism, await self._addresses(host)) and not self.surveying:
                return True
        return False

    async def _addresses(self, host: str) -> tuple[str, ...]:
        answer = await self._ask(host, "A" if self.ip.version == 4 else "AAAA")
        return answer.addresses

    def _covers(self, mechanism: Mechanism, addresses: Sequence[str]) -> bool:
        prefix = mechanism.prefix4 if self.ip.version == 4 else mechanism.prefix6
        rest = self.ip.max_prefixlen - prefix
        return any(int(ip_address(address)) >> rest == int(self.ip) >> rest for address in addresses)

    async def _validated_names(self) -> list[str]:
        """Return the names of the sending address that resolve to it (§5.5). Empty if DNS gives no answer."""
        if self.surveying:
            return []
        answer = await self._resolver.lookup(self.ip.reverse_pointer, "PTR")
        if answer.status in (LookupStatus.NO_NAME, LookupStatus.NO_RECORD):
            self._count_void()
        names = [r.target for r in answer.records if isinstance(r, Pointer)][:MAX_NAMES]
        kind: RecordKind = "A" if self.ip.version == 4 else "AAAA"
        answers = await self._resolver.lookup_all(*((name, kind) for name in names))
        return [
            name
            for name, forward in zip(names, answers, strict=True)
            if any(ip_address(address) == self.ip for address in forward.addresses)
        ]

    async def _target(self, mechanism: Mechanism, domain: str) -> str:
        return domain if mechanism.domain is None else await self._expand(mechanism.domain, domain)

    async def _expand(self, macros: MacroString, domain: str) -> str:
        return truncate_name(expand(macros, await self._values(macros, domain)))

    async def _values(self, macros: MacroString, domain: str) -> Mapping[str, str]:
        mail = self._mail
        values = {
            "s": f"{self._local}@{self._sender_domain}",
            "l": self._local,
            "o": self._sender_domain,
            "d": domain,
            "i": dotted_address(self.ip),
            "h": mail.helo,
            "v": "in-addr" if self.ip.version == 4 else "ip6",
            "c": str(self.ip),
            "r": mail.receiver,
            "t": str(mail.now_s),
        }
        if "p" in macros.letters:
            values["p"] = await self._validated_name(domain)
        return values

    async def _validated_name(self, domain: str) -> str:
        names = await self._validated_names()
        # §7.3: the domain itself, else one below it, else any.
        ranked = sorted(names, key=lambda name: (name.lower() != domain.lower(), not _is_below(name, domain)))
        return ranked[0] if ranked else "unknown"

    async def explain(self, domain: str, record: SpfRecord) -> str | None:
        """Return a domain's explanation of a fail. None if it is missing or invalid (§6.2)."""
        if record.explanation is None:
            return None
        answer = await self._resolver.lookup(await self._expand(record.explanation, domain), "TXT")
        explanations = texts(answer)
        if len(explanations) != 1 or not explanations[0].isascii():
            return None
        try:
            macros = parse_macros(explanations[0], explanation=True)
        except MacroError:
            return None
        return expand(macros, await self._values(macros, domain))

    async def _ask(self, name: str, kind: RecordKind, *, void: bool = True) -> Lookup:
        answer = await self._resolver.lookup(name, kind)
        if answer.status is LookupStatus.NO_ANSWER:
            raise _TemporaryError(unanswered_reason(answer))
        if void and answer.status is not LookupStatus.RECORDS:
            self._count_void()
        return answer

    def _count_lookup(self) -> None:
        self.lookups += 1
        if self.lookups > (SURVEY_LOOKUPS if self.surveying else MAX_LOOKUPS):
            raise _PermanentError(f"it takes more than {MAX_LOOKUPS} lookups")

    def _count_void(self) -> None:
        self.void_lookups += 1
        if self.void_lookups > (SURVEY_LOOKUPS if self.surveying else MAX_VOID_LOOKUPS):
            raise _PermanentError(f"it takes more than {MAX_VOID_LOOKUPS} void lookups")


def _is_domain(name: str) -> bool:
    """Return whether a name is valid and has more than one label (§4.3)."""
    try:
        return "." in name and len(parse_name(name).labels) > 2
    except ValueError:
        return False


def _is_below(name: str, domain: str) -> bool:
    """Return whether a name is a domain or below it."""
    name, domain = name.lower().rstrip("."), domain.lower().rstrip(".")
    return name == domain or name.endswith(f".{domain}")
