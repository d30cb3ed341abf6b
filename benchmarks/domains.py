"""The domains that are checked, and their records: mail as most domains have it, with providers that they share."""

from __future__ import annotations

from ipaddress import ip_address

PROVIDERS = 20
"""Whose SPF records the domains include: 1,000 domains have far fewer providers."""

SELECTOR = "s1"
_KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def names(count: int) -> list[str]:
    return [f"d{n:04}.example" for n in range(count)]


def zone(count: int) -> str:
    """Records of these domains, in the form of a zone file: all is well with all of them."""
    lines = [line for n in range(PROVIDERS) for line in _provider(n)]
    lines += [line for n, name in enumerate(names(count)) for line in _domain(n, name)]
    return "\n".join(lines) + "\n"


def _provider(n: int) -> list[str]:
    name = f"spf.provider{n}.example"
    return [
        f'{name}. TXT "v=spf1 ip4:192.0.2.{n}/32 include:a.{name} include:b.{name} ~all"',
        f'a.{name}. TXT "v=spf1 ip4:198.51.100.{n}/32 ~all"',
        f'b.{name}. TXT "v=spf1 ip6:2001:db8:{n + 1:x}::/48 ~all"',
    ]


def _domain(n: int, name: str) -> list[str]:
    include = f"spf.provider{n % PROVIDERS}.example"
    lines = [
        f'{name}. TXT "v=spf1 mx a:out.{name} include:{include} include:own.{name} -all"',
        f'{name}. TXT "site-verification={n:032}"',
        f'own.{name}. TXT "v=spf1 ip4:203.0.113.{n % 200} -all"',
        f"{name}. MX 10 mx1.{name}.",
        f"{name}. MX 20 mx2.{name}.",
        f'_dmarc.{name}. TXT "v=DMARC1; p=reject; rua=mailto:dmarc@{name}"',
        f'_mta-sts.{name}. TXT "v=STSv1; id=20260101"',
        f'_smtp._tls.{name}. TXT "v=TLSRPTv1; rua=mailto:tls@{name}"',
        f'{SELECTOR}._domainkey.{name}. TXT "v=DKIM1; k=ed25519; p={_KEY}"',
    ]
    # Reserved networks of RFC 2544 and RFC 3849.
    lines += _host(f"mx1.{name}", str(ip_address("198.18.0.0") + n), f"2001:db8::1:{n:x}")
    lines += _host(f"mx2.{name}", str(ip_address("198.19.0.0") + n))
    lines += _host(f"out.{name}", str(ip_address("198.19.128.0") + n))
    return lines


def _host(name: str, *addresses: str) -> list[str]:
    """A host, and its name at each of its addresses."""
    lines = [f"{name}. {'AAAA' if ':' in address else 'A'} {address}" for address in addresses]
    return lines + [f"{ip_address(address).reverse_pointer}. PTR {name}." for address in addresses]
