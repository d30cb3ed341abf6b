"""Checks the standards that consist of one record: TLS-RPT (RFC 8460) and BIMI."""

from __future__ import annotations

from postroad.dns.bimi import is_bimi, parse_bimi
from postroad.dns.dmarc import NoAnswerError, walk
from postroad.dns.dmarc_record import DmarcPolicy
from postroad.dns.finding import Code, Finding, make_finding, txt_record
from postroad.dns.identity import Identity
from postroad.dns.lookup import LookupStatus
from postroad.dns.resolver import Resolver
from postroad.dns.tags import RecordError, texts, unanswered_reason
from postroad.dns.tls_rpt import is_tls_rpt, parse_tls_rpt


async def check_tls_rpt(resolver: Resolver, identity: Identity) -> list[Finding]:
    """Check the recipients of TLS reports."""
    domain = identity.domain
    name = f"_smtp._tls.{domain}"
    answer = await resolver.lookup(name, "TXT")
    if answer.status is LookupStatus.NO_ANSWER:
        return [make_finding(Code.TLS_RPT_UNKNOWN, domain, unanswered_reason(answer))]
    records = [text for text in texts(answer) if is_tls_rpt(text)]
    publish = txt_record(name, f"v=TLSRPTv1; rua=mailto:tls-reports@{domain}")
    if not records:
        return [make_finding(Code.TLS_RPT_ABSENT, domain, f"no record at {name}", publish=publish)]
    if len(records) > 1:
        return [
            make_finding(
                Code.TLS_RPT_INVALID, domain, f"{len(records)} records at {name}", remedy="Delete all but one."
            )
        ]
    try:
        places, faults = parse_tls_rpt(records[0])
    except RecordError as error:
        return [make_finding(Code.TLS_RPT_INVALID, domain, str(error), publish=publish)]
    if faults:
        return [make_finding(Code.TLS_RPT_FAULTS, domain, "; ".join(faults), publish=publish)]
    return [make_finding(Code.TLS_RPT_OK, domain, f"reports go to {', '.join(places)}")]


async def check_bimi(resolver: Resolver, identity: Identity) -> list[Finding]:
    """Check the logo. The verdict is never worse than INFO or UNKNOWN."""
    domain = identity.domain
    name = f"default._bimi.{domain}"
    answer = await resolver.lookup(name, "TXT")
    if answer.status is LookupStatus.NO_ANSWER:
        return [make_finding(Code.BIMI_UNKNOWN, domain, unanswered_reason(answer))]
    records = [text for text in texts(answer) if is_bimi(text)]
    if not records:
        publish = txt_record(name, f"v=BIMI1; l=https://{domain}/logo.svg; a=https://{domain}/logo.pem")
        return [make_finding(Code.BIMI_ABSENT, domain, f"no record at {name}", publish=publish)]
    try:
        bimi = parse_bimi(records[0])
        policy = (await walk(resolver, domain)).policy
    except RecordError as error:
        return [make_finding(Code.BIMI_INVALID, domain, str(error))]
    except NoAnswerError as error:
        return [make_finding(Code.BIMI_UNKNOWN, domain, str(error))]
    if (
        policy is None
        or policy.record is None
        or DmarcPolicy.NONE in (policy.record.policy, policy.record.subdomain_policy)
    ):
        seen = "there is a logo, and DMARC does not ask for quarantine or reject"
        return [make_finding(Code.BIMI_NEEDS_DMARC, domain, seen)]
    return [make_finding(Code.BIMI_OK, domain, bimi.logo or "the domain declines to show one")]
