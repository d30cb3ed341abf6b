"""A domain with everything that a check looks at, and a check of it with parts replaced."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from postroad.clock import SystemClock
from postroad.dns.finding import Code, Finding
from postroad.dns.health import HealthReport, check_identity
from postroad.dns.identity import Identity
from postroad.dns.resolver import Resolver
from tests.dns.nameserver import Nameserver, Zone


def rsa(bits: int) -> str:
    if bits < 1024:  # No library makes such a key any more; that it is one is enough.
        key = RSAPublicNumbers(65537, 2 ** (bits - 1) + 1).public_key()
    else:
        key = generate_private_key(65537, bits).public_key()
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def ed25519() -> str:
    key = Ed25519PrivateKey.generate().public_key()
    return base64.b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def txt(text: str) -> str:
    return " ".join(f'"{text[start : start + 255]}"' for start in range(0, len(text), 255))


RSA, OTHER_RSA, SHORT, WEAK, ED = rsa(2048), rsa(2048), rsa(1024), rsa(768), ed25519()

GOOD: dict[str, dict[str, list[str]]] = {
    "acme.dev": {
        "TXT": ['"v=spf1 ip4:198.51.100.7 -all"'],
        "MX": ["10 mx.acme.dev."],
        "SOA": ["ns.acme.dev. h.acme.dev. 1 2 3 4 5"],
    },
    "mx.acme.dev": {"A": ["198.51.100.9"]},
    "out.acme.dev": {"A": ["198.51.100.7"]},
    "7.100.51.198.in-addr.arpa": {"PTR": ["out.acme.dev."]},
    "_dmarc.acme.dev": {"TXT": ['"v=DMARC1; p=reject; rua=mailto:dmarc@acme.dev"']},
    "a._domainkey.acme.dev": {"TXT": [txt(f"v=DKIM1; k=rsa; p={RSA}")]},
    "b._domainkey.acme.dev": {"TXT": [txt(f"v=DKIM1; k=ed25519; p={ED}")]},
    "_smtp._tls.acme.dev": {"TXT": ['"v=TLSRPTv1; rua=mailto:tls@acme.dev"']},
    "_mta-sts.acme.dev": {"TXT": ['"v=STSv1; id=1"']},
    "mta-sts.acme.dev": {"A": ["127.0.0.1"]},
    "default._bimi.acme.dev": {"TXT": ['"v=BIMI1; l=https://acme.dev/logo.svg"']},
    "_25._tcp.mx.acme.dev": {"TLSA": ["3 1 1 " + "ab" * 32]},
}

SIGNED = ("acme.dev", "mx.acme.dev", "_25._tcp.mx.acme.dev")

POLICY = "version: STSv1\r\nmode: enforce\r\nmx: mx.acme.dev\r\nmax_age: 86400\r\n"

IDENTITY = Identity(
    domain="acme.dev",
    sender_ips=("198.51.100.7",),
    selectors=("a", "b"),
    helo="out.acme.dev",
    keys={"a": RSA, "b": ED},
    address_blocklists=("bl.test",),
    domain_blocklists=("dbl.test",),
)


def zone_with(changes: Mapping[str, Mapping[str, list[str]] | None]) -> Zone:
    """Return the valid zone with some names changed, or removed (None)."""
    return {name: kinds for name, kinds in {**GOOD, **changes}.items() if kinds is not None}


async def check(
    changes: Mapping[str, Any] | None = None,
    identity: Identity = IDENTITY,
    *,
    trust: ssl.SSLContext | None = None,
    https_port: int = 443,
    **server_options: Any,
) -> HealthReport:
    options = {"signed": SIGNED, **server_options}
    # A busy machine may take its time to answer; only where silence is meant is it not waited for.
    timeout_ms = 500 if server_options.get("troubles") else 10_000
    async with (
        Nameserver(
            zone_with({**(changes or {})} if trust else {"_mta-sts.acme.dev": None, **(changes or {})}), **options
        ) as server,
        Resolver(server.settings(trust_ad=True, timeout_ms=timeout_ms), SystemClock()) as resolver,
    ):
        trust = trust or ssl.create_default_context()
        return await check_identity(resolver, identity, SystemClock(), trust, https_port=https_port)


def codes(report: HealthReport) -> set[str]:
    return {finding.code for finding in report.findings}


def only(report: HealthReport, code: Code) -> Finding:
    [finding] = [finding for finding in report.findings if finding.code == code.word]
    return finding
