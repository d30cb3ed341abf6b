"""checkdmarc: https://domainaware.github.io/checkdmarc. Its functions of the standards that ours checks as well.

Left out of its `check_domains`: DNSSEC, SOA and NS of the domain, which ours does not ask, and the policy of
MTA-STS, which is HTTPS.
"""

from __future__ import annotations

from collections.abc import Sequence

from checkdmarc.bimi import check_bimi  # type: ignore[import-not-found, unused-ignore]
from checkdmarc.dmarc import check_dmarc  # type: ignore[import-not-found, unused-ignore]
from checkdmarc.mta_sts import (  # type: ignore[import-not-found, unused-ignore]
    MTASTSError,
    parse_mta_sts_record,
    query_mta_sts_record,
)
from checkdmarc.smtp import check_mx  # type: ignore[import-not-found, unused-ignore]
from checkdmarc.smtp_tls_reporting import check_smtp_tls_reporting  # type: ignore[import-not-found, unused-ignore]
from checkdmarc.spf import check_spf  # type: ignore[import-not-found, unused-ignore]
from dns.nameserver import Do53Nameserver

from benchmarks.dns_contract import Checker, run


def check(host: str, port: int, domains: Sequence[str]) -> int:
    nameservers = [Do53Nameserver(host, port)]
    return sum(_is_well(domain, nameservers) for domain in domains)


def _is_well(domain: str, nameservers: list[Do53Nameserver]) -> bool:
    try:
        parse_mta_sts_record(query_mta_sts_record(domain, nameservers=nameservers)["record"])
    except MTASTSError:
        return False
    mail_hosts = check_mx(domain, nameservers=nameservers)
    policy = check_dmarc(domain, nameservers=nameservers)
    check_bimi(
        domain, parsed_dmarc_record=policy, nameservers=nameservers
    )  # There is no BIMI record; ours reports the same.
    return bool(
        mail_hosts["hosts"]
        and not mail_hosts["warnings"]
        and policy["valid"]
        and check_spf(domain, nameservers=nameservers)["valid"]
        and check_smtp_tls_reporting(domain, nameservers=nameservers)["valid"]
    )


if __name__ == "__main__":
    run(
        Checker(
            packages=("checkdmarc", "dnspython"),
            how="one domain after the other, as its `check_domains` does; its cache of answers",
            source="https://domainaware.github.io/checkdmarc/api.html",
            check=check,
        )
    )
