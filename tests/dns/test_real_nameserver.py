"""`postroad dns check` with nsd, an independent name server, and a real zone file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import nsd
from tests.cli.test_dns import postroad
from tests.dns.domain import ED, RSA, txt
from tests.required import missing

ZONE = f"""
example.com. TXT "v=spf1 mx include:spf.provider.example -all"
example.com. MX 10 mx.example.com.
mx.example.com. A 192.0.2.25
out.example.com. CNAME host.provider.example.
host.provider.example. A 198.51.100.7
7.100.51.198.in-addr.arpa. PTR host.provider.example.
spf.provider.example. TXT "v=spf1 ip4:198.51.100.0/24 ~all"
_dmarc.example.com. TXT "v=DMARC1; p=reject; rua=mailto:dmarc@example.com"
_smtp._tls.example.com. TXT "v=TLSRPTv1; rua=mailto:tls@example.com"
a._domainkey.example.com. TXT {txt(f"v=DKIM1; k=rsa; p={RSA}")}
b._domainkey.example.com. CNAME b.keys.provider.example.
b.keys.provider.example. TXT {txt(f"v=DKIM1; k=ed25519; p={ED}")}
"""
BIG = "".join(f'example.com. TXT "verification={n}-{"x" * 200}"\n' for n in range(20))
"""4 kB at one name: nsd sends a truncated response over UDP."""

BROKEN = (
    ZONE.replace("include:spf.provider.example -all", "-all")
    .replace("_dmarc.example.com. TXT", "elsewhere.example.com. TXT")
    .replace("mx.example.com. A 192.0.2.25\n", "")
)
OPTIONS = (
    *("--sender-ip", "198.51.100.7", "--dkim-selector", "a", "--dkim-selector", "b"),
    *("--helo", "host.provider.example"),
)


async def check(folder: Path, zone: str, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit code, and the findings by code."""
    try:
        async with nsd.serving(zone) as server:
            code, out, err = await postroad(
                folder, "dns", "check", "example.com", "--resolver", server.address, *OPTIONS, "--json", *arguments
            )
    except nsd.NotInstalledError:
        missing("nsd", "apt-get install nsd")
    assert err == ""
    report = json.loads(out)
    assert report["domain"] == "example.com"
    return code, {finding["code"]: finding for finding in report["findings"]}


async def test_a_domain_that_is_well(tmp_path: Path) -> None:
    code, found = await check(tmp_path, ZONE + BIG)
    assert code == 0
    assert {finding["verdict"] for finding in found.values()} == {"pass", "info"}, found
    assert {"spf.ok", "dkim.ok", "dmarc.ok", "mx.ok", "ptr.ok", "tls-rpt.ok"} <= found.keys()
    assert {"mta-sts.absent", "dane.absent", "bimi.absent"} <= found.keys()
    assert "2 lookups of 10" in found["spf.ok"]["seen"]


async def test_each_fault_is_reported_with_the_record_to_publish(tmp_path: Path) -> None:
    code, found = await check(tmp_path, BROKEN)
    assert code == 1
    assert {code for code, finding in found.items() if finding["verdict"] == "fail"} == {
        "spf.not-covered",
        "dmarc.missing",
        "mx.no-address",
    }
    assert found["spf.not-covered"]["publish"] == 'example.com. IN TXT "v=spf1 ip4:198.51.100.7 mx -all"'
    assert found["dmarc.missing"]["publish"].startswith('_dmarc.example.com. IN TXT "v=DMARC1; p=none;')
