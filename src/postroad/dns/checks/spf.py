"""Checks SPF of the return path (RFC 7208): the record, its lookups, and whether it covers the sending addresses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address

from postroad.dns.finding import Code, Finding, RecordVerdict, make_finding, txt_record
from postroad.dns.identity import Identity
from postroad.dns.lookup import LookupStatus
from postroad.dns.resolver import Resolver
from postroad.dns.spf import MAX_LOOKUPS, MAX_VOID_LOOKUPS, SpfInput, SpfOutcome, SpfResult, Survey, check_host, survey
from postroad.dns.spf_record import MechanismKind, Qualifier, SpfSyntaxError, is_spf, parse_spf
from postroad.dns.tags import texts, unanswered_reason

MANY_LOOKUPS = 8
UNUSED_ADDRESS = "203.0.113.255"
"""An address for documentation (RFC 5737). No host has it, so no record should let it pass."""


async def check(resolver: Resolver, identity: Identity) -> list[Finding]:
    """Check the SPF record."""
    domain, ips = identity.return_path, identity.sender_ips
    answer = await resolver.lookup(domain, "TXT")
    if answer.status is LookupStatus.NO_ANSWER:
        return [make_finding(Code.SPF_UNKNOWN, domain, unanswered_reason(answer))]
    records = [text for text in texts(answer) if is_spf(text)]
    if not records:
        return [make_finding(Code.SPF_MISSING, domain, "there is no SPF record", publish=_proposal(domain, ips))]
    if len(records) > 1:
        remedy = "Put the mechanisms of all of them into one record, and delete the others."
        return [make_finding(Code.SPF_SEVERAL, domain, " and ".join(f'"{text}"' for text in records), remedy=remedy)]
    text = records[0]
    try:
        parse_spf(text)
    except SpfSyntaxError as error:
        remedy = "Fix this term."
        return [make_finding(Code.SPF_INVALID, domain, str(error), remedy=remedy, publish=_proposal(domain, ips))]
    seen = await survey(resolver, domain)
    outcomes = {ip: await check_host(resolver, _mail(identity, ip), domain) for ip in ips}
    findings = list(_cost(domain, text, seen))
    if ips and all(outcome.result is SpfResult.PASS for outcome in outcomes.values()):
        findings = [_unreached(finding) for finding in findings]
    findings += _content(domain, text, seen)
    findings += await _open_to_all(resolver, domain, text)
    for ip, outcome in outcomes.items():
        if outcome.result is SpfResult.PERMERROR and any(finding.verdict is RecordVerdict.FAIL for finding in findings):
            continue  # The cause is among the findings already.
        findings += _coverage(domain, text, ip, outcome)
    return findings or [make_finding(Code.SPF_OK, domain, f'"{text}"; {seen.outcome.lookups} lookups of {MAX_LOOKUPS}')]


def _mail(identity: Identity, ip: str) -> SpfInput:
    domain = identity.return_path
    return SpfInput(ip=ip_address(ip), sender=f"postmaster@{domain}", helo=identity.helo or domain)


def _unreached(finding: Finding) -> Finding:
    """Return a warning for a failure: receivers stop at the term that matches (RFC 7208 §4.6.2)."""
    if finding.verdict is not RecordVerdict.FAIL:
        return finding
    seen = f"{finding.seen}; mail from the addresses of the sender passes before receivers evaluate this"
    return replace(finding, verdict=RecordVerdict.WARN, seen=seen)


def _cost(domain: str, text: str, seen: Survey) -> Iterator[Finding]:
    outcome = seen.outcome
    if outcome.result is SpfResult.TEMPERROR:
        yield make_finding(Code.SPF_UNKNOWN, domain, outcome.why)
        return
    if outcome.lookups > MAX_LOOKUPS:
        remedy = f"Take out includes whose hosts no longer send for you, until at most {MAX_LOOKUPS} lookups are left."
        yield make_finding(Code.SPF_LOOKUPS_OVER, domain, f'"{text}" takes {outcome.lookups} lookups', remedy=remedy)
    elif outcome.result is SpfResult.PERMERROR:
        yield make_finding(
            Code.SPF_INVALID, domain, outcome.why, remedy="Fix it, or take out the term that leads there."
        )
    elif outcome.lookups >= MANY_LOOKUPS:
        remedy = "Take out includes whose hosts no longer send for you."
        yield make_finding(Code.SPF_LOOKUPS_MANY, domain, f"it takes {outcome.lookups} lookups of 10", remedy=remedy)
    if outcome.void_lookups > MAX_VOID_LOOKUPS:
        remedy = "Take out names that do not exist any more."
        seen_text = f"{outcome.void_lookups} of its names do not exist or have no record"
        yield make_finding(Code.SPF_VOID_OVER, domain, seen_text, remedy=remedy)


def _content(domain: str, text: str, seen: Survey) -> Iterator[Finding]:
    used = [mechanism for _, record in seen.records for mechanism in record.mechanisms]
    if any(mechanism.kind is MechanismKind.PTR for mechanism in used):
        yield make_finding(
            Code.SPF_PTR, domain, f'"{text}"', remedy="Name the addresses by ip4: and ip6: in its place."
        )
    yield from _after_all(domain, seen)
    if seen.last is None:
        if seen.outcome.result is SpfResult.NEUTRAL:
            publish = txt_record(domain, _with_all(text, "~all")) if len(seen.records) == 1 else ""
            remedy = "End the record with ~all or -all, or the one that it redirects to."
            yield make_finding(Code.SPF_NO_ALL, domain, f'"{text}"', remedy=remedy, publish=publish)
        return
    where, last = seen.last
    if last.all is not None and last.all.qualifier is Qualifier.NEUTRAL:
        # A redirect after `all` is never evaluated: the record to fix is the one with this `all`.
        publish = txt_record(domain, _with_all(text, "~all")) if where == domain else ""
        remedy = f"Let the record of {where} end with ~all or -all."
        yield make_finding(Code.SPF_NEUTRAL_ALL, domain, f"{last.all.text} of {where}", remedy=remedy, publish=publish)


def _after_all(domain: str, seen: Survey) -> Iterator[Finding]:
    """Find terms of the domain's own record that receivers never evaluate."""
    own = next((record for where, record in seen.records if where == domain), None)
    if own is None or own.all is None:
        return
    unused = [mechanism.text for mechanism in own.mechanisms[own.mechanisms.index(own.all) + 1 :]]
    unused += ["redirect="] * (own.redirect is not None)
    if unused:
        remedy = f"Write them before {own.all.text}, or take them out."
        yield make_finding(Code.SPF_AFTER_ALL, domain, f"after {own.all.text}: {' '.join(unused)}", remedy=remedy)


async def _open_to_all(resolver: Resolver, domain: str, text: str) -> list[Finding]:
    """Check whether any host passes: by +all, by ip4:0.0.0.0/0, or by an included record with one of these."""
    unused = SpfInput(ip=ip_address(UNUSED_ADDRESS), sender=f"postmaster@{domain}", helo="unused.invalid")
    outcome = await check_host(resolver, unused, domain)
    if outcome.result is not SpfResult.PASS:
        return []
    seen = f"mail from {UNUSED_ADDRESS}, an address of no host, passes ({outcome.why})"
    publish = txt_record(domain, _with_all(text, "-all"))
    remedy = "Take out the term that lets it pass, and end with -all or ~all."
    return [make_finding(Code.SPF_PLUS_ALL, domain, seen, remedy=remedy, publish=publish)]


def _coverage(domain: str, text: str, ip: str, outcome: SpfOutcome) -> Iterator[Finding]:
    match outcome.result:
        case SpfResult.PASS:
            return
        case SpfResult.PERMERROR:
            yield make_finding(
                Code.SPF_INVALID, ip, outcome.why, remedy="Fix it, or take out the term that leads there."
            )
        case SpfResult.TEMPERROR:
            yield make_finding(Code.SPF_UNKNOWN, ip, outcome.why)
        case _:
            publish = txt_record(domain, _with_address(text, ip))
            seen = f"mail from {ip} gets {outcome.result} ({outcome.why})"
            yield make_finding(Code.SPF_NOT_COVERED, ip, seen, publish=publish)


def _proposal(domain: str, ips: Sequence[str]) -> str:
    if not ips:
        return txt_record(domain, "v=spf1 ip4:ADDRESS-THAT-SENDS -all")
    return txt_record(domain, " ".join(["v=spf1", *map(_term, ips), "-all"]))


def _term(ip: str) -> str:
    return f"ip{ip_address(ip).version}:{ip}"


def _with_address(text: str, ip: str) -> str:
    """Return the record with an address added at the start, because terms after `all` are never evaluated."""
    version, _, rest = text.partition(" ")
    return f"{version} {_term(ip)} {rest}".strip()


def _with_all(text: str, all_: str) -> str:
    return " ".join([*(term for term in text.split() if term.lower().lstrip("+-~?") != "all"), all_])
