"""Checks DMARC (RFC 9989): the policy of the From domain, and the alignment of the authenticated domains with it."""

from __future__ import annotations

from collections.abc import Iterator

from postroad.dns.dmarc import NoAnswerError, Walk, aligned, walk
from postroad.dns.dmarc_record import REMOVED, DmarcPolicy, DmarcRecord, is_dmarc
from postroad.dns.finding import Code, Finding, make_finding, txt_record
from postroad.dns.identity import Identity
from postroad.dns.lookup import LookupStatus
from postroad.dns.mx import MailExchange, find_mail_hosts
from postroad.dns.resolver import Resolver
from postroad.dns.tags import texts, unanswered_reason

MAX_PLACES = 10
"""Maximum number of report recipients whose consent is checked."""


async def check(resolver: Resolver, identity: Identity, *, signed: bool | None) -> list[Finding]:
    """Check the DMARC policy.

    Args:
        resolver: Sends the queries.
        identity: The domain.
        signed: Whether a valid DKIM key was found. None if that is unknown.

    Returns:
        The findings.
    """
    domain = identity.domain
    try:
        found_walk = await walk(resolver, domain)
        findings = [*_policy(found_walk), *await _alignment(resolver, identity, found_walk, signed)]
        findings += await _reports(resolver, found_walk)
    except NoAnswerError as error:
        return [make_finding(Code.DMARC_UNKNOWN, domain, str(error))]
    policy = found_walk.policy
    if findings or policy is None:
        return findings
    return [make_finding(Code.DMARC_OK, domain, f'"{policy.text}" at _dmarc.{policy.domain}')]


def _proposal(walk: Walk, policy: str = "quarantine") -> str:
    organisation = walk.organisation
    return txt_record(f"_dmarc.{organisation}", f"v=DMARC1; p={policy}; rua=mailto:dmarc@{organisation}")


def _policy(walk: Walk) -> Iterator[Finding]:
    step = walk.policy
    invalid = [candidate for candidate in walk.steps if candidate.several or candidate.wrong]
    if step is not None:
        invalid = [candidate for candidate in invalid if candidate is walk.steps[0]]  # The others have no effect.
    for candidate in invalid:
        name = f"_dmarc.{candidate.domain}"
        if candidate.several:
            remedy = "Delete all but one."
            yield make_finding(Code.DMARC_SEVERAL, walk.domain, f"{candidate.several} records at {name}", remedy=remedy)
        else:
            seen = f'"{candidate.text}" at {name}: {candidate.wrong}'
            yield make_finding(Code.DMARC_INVALID, walk.domain, seen, publish=_proposal(walk))
    if step is None or step.record is None:
        if not invalid:
            name = f"_dmarc.{walk.domain}"
            remedy = "Begin with p=none, read the reports, then change to quarantine and reject."
            seen = f"no record at {name}, nor above it"
            yield make_finding(Code.DMARC_MISSING, walk.domain, seen, remedy=remedy, publish=_proposal(walk, "none"))
        return
    record = step.record
    if record.faults:
        seen = f'"{step.text}": {"; ".join(record.faults)}'
        yield make_finding(Code.DMARC_FAULTS, walk.domain, seen, remedy="Correct the record.")
    inherited = step.domain != walk.domain
    policy = record.subdomain_policy if inherited else record.policy
    if policy is DmarcPolicy.NONE:
        remedy = "When the reports show that all good mail passes, ask for quarantine, then reject."
        seen = f'"{step.text}" at _dmarc.{step.domain}'
        yield make_finding(Code.DMARC_NONE, walk.domain, seen, remedy=remedy, publish=_proposal(walk))
    elif record.subdomain_policy is DmarcPolicy.NONE or record.missing_policy is DmarcPolicy.NONE:
        yield make_finding(Code.DMARC_SUBDOMAINS, walk.domain, f'"{step.text}"', remedy="Take out sp=none and np=none.")
    yield from _tags(walk.domain, step.text, record)


def _tags(domain: str, text: str, record: DmarcRecord) -> Iterator[Finding]:
    if not record.reports_to:
        remedy = "Add rua=mailto:… and read the reports: `postroad dns reports`."
        yield make_finding(Code.DMARC_NO_REPORTS, domain, f'"{text}"', remedy=remedy)
    if record.doubtful:
        remedy = "Write rua=mailto:dmarc@example.com, without a size."
        yield make_finding(Code.DMARC_REPORT_URI, domain, "; ".join(record.doubtful), remedy=remedy)
    if record.ignored:
        removed = [name for name in record.ignored if name in REMOVED]
        seen = ", ".join(record.ignored) + (" (RFC 9989 removed pct, rf and ri)" if removed else "")
        yield make_finding(Code.DMARC_TAGS, domain, seen, remedy="Take them out; in place of pct there is t=y.")
    if record.testing and record.policy is not DmarcPolicy.NONE:
        yield make_finding(
            Code.DMARC_TESTING, domain, f'"{text}"', remedy="Take out t=y when the reports show no harm."
        )


async def _alignment(resolver: Resolver, identity: Identity, walk: Walk, signed: bool | None) -> list[Finding]:
    strict = walk.policy is not None and walk.policy.record is not None and walk.policy.record.strict_spf
    if await aligned(resolver, identity.return_path, identity.domain, strict=strict):
        return []
    seen = f"the return path is at {identity.return_path}, the From address at {identity.domain}"
    remedy = f"Take a bounce domain below {walk.organisation}"
    if strict:
        remedy = f"Take {identity.domain} as bounce domain, or aspf=r"
    code = Code.DMARC_UNALIGNED if signed is False else Code.DMARC_SPF_UNALIGNED
    return [make_finding(code, identity.domain, seen, remedy=f"{remedy}, or sign with DKIM as {identity.domain}.")]


async def _reports(resolver: Resolver, walk: Walk) -> list[Finding]:
    """Check whether the recipients of reports accept mail, and whether other domains consented (RFC 9990)."""
    step = walk.policy
    if step is None or step.record is None:
        return []
    findings: list[Finding] = []
    places = dict.fromkeys(_mail_domain(uri) for uri in (*step.record.reports_to, *step.record.failures_to))
    for place in [place for place in places if place][:MAX_PLACES]:
        hosts = await find_mail_hosts(resolver, place)
        if hosts.exchange is MailExchange.UNKNOWN:
            findings.append(make_finding(Code.DMARC_UNKNOWN, place, hosts.why))
        elif hosts.exchange is not MailExchange.HOSTS:
            remedy = "Name an address whose domain accepts mail."
            findings.append(make_finding(Code.DMARC_REPORTS_LOST, place, hosts.why, remedy=remedy))
        if await aligned(resolver, place, step.domain, strict=False):
            continue
        name = f"{step.domain}._report._dmarc.{place}"
        answer = await resolver.lookup(name, "TXT")
        if answer.status is LookupStatus.NO_ANSWER:
            findings.append(make_finding(Code.DMARC_UNKNOWN, name, unanswered_reason(answer)))
        elif not any(is_dmarc(text) for text in texts(answer)):
            seen = f"reports go to {place}, which has not published its consent"
            publish = txt_record(name, "v=DMARC1")
            remedy = f"The operator of {place} must publish it."
            findings.append(make_finding(Code.DMARC_REPORTS_REFUSED, place, seen, remedy=remedy, publish=publish))
    return findings


def _mail_domain(uri: str) -> str:
    scheme, _, rest = uri.partition(":")
    return rest.partition("?")[0].rpartition("@")[2].lower().rstrip(".") if scheme.lower() == "mailto" else ""
