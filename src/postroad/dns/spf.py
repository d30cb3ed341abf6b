"""Whether a host may send in a domain's name: check_host() of RFC 7208, with all its limits."""

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
from postroad.dns.spf_macro import MacroError, MacroString, dotted, expand, fit_name, parse_macros
from postroad.dns.spf_record import Mechanism, MechanismKind, Qualifier, Record, SpfSyntaxError, is_spf, parse_spf
from postroad.dns.tags import texts, unanswered_reason

MAX_LOOKUPS = 10
MAX_VOID_LOOKUPS = 2
MAX_NAMES = 10
"""Of one `mx` and one `ptr`. RFC 7208 §4.6.4."""
DEADLINE_S = 20.0
"""RFC 7208 §4.6.4: at least that long; then it is a temperror."""
SURVEY_LOOKUPS = 60
"""Where counting ends: a loop of includes would go on for ever."""


class SpfResult(StrEnum):
    """RFC 7208 §2.6."""

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
class Mail:
    """Whose mail is judged. ``sender`` with or without local part; ``helo`` is the name in EHLO."""

    ip: IPv4Address | IPv6Address
    sender: str
    helo: str = "unknown"
    receiver: str = "unknown"
    now_s: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SpfOutcome:
    """What became of a check. ``explanation``: of a fail, what the domain has to say to it."""

    result: SpfResult
    why: str = ""
    explanation: str | None = None
    lookups: int = 0
    void_lookups: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What a record costs whoever evaluates all of it. ``outcome``: what a stranger gets, without limits."""

    outcome: SpfOutcome
    records: tuple[tuple[str, Record], ...]
    """Domain and record: the domain's own, and those that it includes or redirects to."""
    last: tuple[str, Record] | None
    """The one whose `all` decides about strangers; None: there is no `all`, or it is never reached."""


class _TemporaryError(Exception):
    pass


class _PermanentError(Exception):
    pass


async def check_host(resolver: Resolver, mail: Mail, domain: str) -> SpfOutcome:
    """Evaluate the policy of a domain for mail (RFC 7208 §4). Never raises for what DNS may say."""
    return await _evaluate(_Check(resolver, mail), domain)


async def survey(resolver: Resolver, domain: str) -> Survey:
    """Evaluate all of a domain's policy, as if no mechanism matched, to see what it costs and holds."""
    check = _Check(resolver, Mail(ip=IPv4Address("192.0.2.0"), sender=f"postmaster@{domain}"), stranger=True)
    outcome = await _evaluate(check, domain)
    return Survey(outcome=outcome, records=tuple(check.records), last=check.decided)


async def _evaluate(check: _Check, domain: str) -> SpfOutcome:
    explanation: str | None = None
    result, why = SpfResult.TEMPERROR, f"no result within {DEADLINE_S:g} s"
    try:
        async with asyncio.timeout(DEADLINE_S):
            result, why, check.decided = await check.domain(domain)
            if result is SpfResult.FAIL and check.decided is not None and not check.stranger:
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


Judged = tuple[SpfResult, str, tuple[str, Record] | None]
"""Result, the term that decided, and the domain and record whose explanation holds."""


class _Check:
    """One evaluation, with what it has used up of its limits."""

    def __init__(self, resolver: Resolver, mail: Mail, *, stranger: bool = False) -> None:
        ip = mail.ip
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        self.ip = ip
        self.stranger = stranger
        self.lookups = 0
        self.void_lookups = 0
        self.records: list[tuple[str, Record]] = []
        self.decided: tuple[str, Record] | None = None
        self._resolver = resolver
        self._mail = mail
        self._local, _, self._sender_domain = mail.sender.rpartition("@")
        self._local = self._local or "postmaster"  # §4.3

    async def domain(self, domain: str) -> Judged:
        """check_host() of one domain, the first or one that it leads to."""
        domain = domain.removesuffix(".")
        if not _is_domain(domain):
            return SpfResult.NONE, f"{domain!r} is no domain", None
        record = await self._record(domain)
        if record is None:
            return SpfResult.NONE, f"{domain} has no SPF record", None
        self.records.append((domain, record))
        for mechanism in record.mechanisms:
            if await self._matches(mechanism, domain) and not (
                self.stranger and mechanism.kind is not MechanismKind.ALL
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

    async def _record(self, domain: str) -> Record | None:
        answer = await self._ask(domain, "TXT", void=False)
        found = [text for text in texts(answer) if is_spf(text)]
        if len(found) > 1:
            raise _PermanentError(f"{domain} has {len(found)} SPF records")
        if not found:
            return None
        if not found[0].isascii():
            raise _PermanentError(f"the SPF record of {domain} is not ASCII")
        try:
            return parse_spf(found[0])
        except SpfSyntaxError as error:
            raise _PermanentError(f"the SPF record of {domain}: {error}") from None

    async def _matches(self, mechanism: Mechanism, domain: str) -> bool:
        if mechanism.kind.looks_up:
            self._count_lookup()
        if self.stranger and mechanism.domain is not None and mechanism.domain.letters - {"d"}:
            return False  # What it leads to differs from mail to mail.
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
            if self._covers(mechanism, await self._addresses(host)) and not self.stranger:
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
        """Names of the sending address that lead back to it (§5.5). Without an answer there is none."""
        if self.stranger:
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
        return fit_name(expand(macros, await self._values(macros, domain)))

    async def _values(self, macros: MacroString, domain: str) -> Mapping[str, str]:
        mail = self._mail
        values = {
            "s": f"{self._local}@{self._sender_domain}",
            "l": self._local,
            "o": self._sender_domain,
            "d": domain,
            "i": dotted(self.ip),
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

    async def explain(self, domain: str, record: Record) -> str | None:
        """Return what a domain says to a fail, or None: whatever goes wrong here spoils nothing (§6.2)."""
        if record.explanation is None:
            return None
        answer = await self._resolver.lookup(await self._expand(record.explanation, domain), "TXT")
        said = texts(answer)
        if len(said) != 1 or not said[0].isascii():
            return None
        try:
            macros = parse_macros(said[0], explanation=True)
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
        if self.lookups > (SURVEY_LOOKUPS if self.stranger else MAX_LOOKUPS):
            raise _PermanentError(f"it takes more than {MAX_LOOKUPS} lookups")

    def _count_void(self) -> None:
        self.void_lookups += 1
        if self.void_lookups > (SURVEY_LOOKUPS if self.stranger else MAX_VOID_LOOKUPS):
            raise _PermanentError(f"more than {MAX_VOID_LOOKUPS} of its names lead nowhere")


def _is_domain(name: str) -> bool:
    """Return whether a name is valid and has more than one label (§4.3)."""
    try:
        return "." in name and len(parse_name(name).labels) > 2
    except ValueError:
        return False


def _is_below(name: str, domain: str) -> bool:
    """Whether a name is a domain, or in it."""
    name, domain = name.lower().rstrip("."), domain.lower().rstrip(".")
    return name == domain or name.endswith(f".{domain}")
