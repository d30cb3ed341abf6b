"""Checks MTA-STS (RFC 8461): the record, the policy, and whether the policy names all mail hosts."""

from __future__ import annotations

import ssl

from postroad.dns.finding import Code, Finding, make_finding, txt_record
from postroad.dns.identity import Identity
from postroad.dns.lookup import LookupStatus
from postroad.dns.mta_sts import PolicyError, StsMode, fetch_policy, find_policy_id
from postroad.dns.mx import find_mail_hosts
from postroad.dns.public_address import EVERYWHERE
from postroad.dns.resolver import Resolver


async def check(
    resolver: Resolver, identity: Identity, trust: ssl.SSLContext, *, https_port: int = 443
) -> list[Finding]:
    """Check the From domain's policy."""
    domain = identity.domain
    status, policy_id = await find_policy_id(resolver, domain)
    if status is LookupStatus.NO_ANSWER:
        return [make_finding(Code.STS_UNKNOWN, domain, f"no answer about _mta-sts.{domain}")]
    if policy_id is None:
        seen = f"no valid record at _mta-sts.{domain}"
        remedy = f"Serve a policy at https://mta-sts.{domain}/.well-known/mta-sts.txt, then publish the record."
        publish = txt_record(f"_mta-sts.{domain}", "v=STSv1; id=1")
        return [make_finding(Code.STS_ABSENT, domain, seen, remedy=remedy, publish=publish)]
    try:
        policy = await fetch_policy(resolver, domain, trust, port=https_port, allowed=EVERYWHERE)
    except PolicyError as error:
        return [
            make_finding(
                Code.STS_INVALID, domain, str(error), remedy="Fix the policy, then change the id of the record."
            )
        ]
    if policy.mode is StsMode.NONE:
        return [
            make_finding(
                Code.STS_ABSENT,
                domain,
                "the mode of the policy is `none`",
                remedy="Set it to testing, then to enforce.",
            )
        ]
    hosts = await find_mail_hosts(resolver, domain)
    missing = [name for name in hosts.names if not policy.covers(name)]
    if missing:
        remedy = f"Add to the policy: {' '.join(f'mx: {name}' for name in missing)}. Then change the id of the record."
        return [
            make_finding(Code.STS_DISAGREES, domain, f"the policy does not name {', '.join(missing)}", remedy=remedy)
        ]
    if policy.mode is StsMode.TESTING:
        remedy = "When TLS reports show no failure, set it to enforce and change the id of the record."
        return [make_finding(Code.STS_TESTING, domain, "the mode of the policy is `testing`", remedy=remedy)]
    return [make_finding(Code.STS_OK, domain, f"enforce, for {', '.join(policy.hosts)}")]
