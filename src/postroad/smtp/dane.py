"""DANE for SMTP (RFC 7672): the certificate is the one that the receiver's signed DNS names."""

from __future__ import annotations

import hashlib
import hmac
import ssl
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

# The form that browsers ask of certificates is not what private authorities keep to; names, dates and signatures are.
_SERVER = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
_AUTHORITY = ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, Criticality.AGNOSTIC, lambda _policy, _certificate, found: _must_be_authority(found)
)

DANE_TA, DANE_EE = 2, 3
"""RFC 7672 §3.1: the two usages that SMTP knows; 0 and 1 are unusable (§3.1.3)."""


class TlsaAssociation(NamedTuple):
    """One TLSA record (RFC 6698 §2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes

    @property
    def usable(self) -> bool:
        """Whether anything can match it: a digest of another length than digests have is malformed (RFC 6698 §4.1)."""
        size = {0: len(self.data), 1: 32, 2: 64}.get(self.matching)
        return self.usage in (DANE_TA, DANE_EE) and self.selector in (0, 1) and len(self.data) == size


def _must_be_authority(found: x509.BasicConstraints) -> None:
    if not found.ca:
        raise ValueError("a certificate that is no authority's signed another")


def peer_chain(connection: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
    """Return the certificates that the server sent, DER, its own first."""
    if hasattr(connection, "get_unverified_chain"):  # Python 3.13
        return list(connection.get_unverified_chain())
    inner = connection._sslobj  # type: ignore[union-attr]  # what 3.13 made public was there before
    return [found.public_bytes(2) for found in inner.get_unverified_chain() or ()]  # 2: DER


def check_chain(chain: Sequence[bytes], records: Sequence[TlsaAssociation], host: str, now: datetime) -> None:
    """Raises ssl.SSLError unless one usable record matches (RFC 7672 §3.1.1, §3.1.2)."""
    if chain and any(record.usage == DANE_EE and _matches(record, chain[0]) for record in records):
        return  # Its name and its dates do not matter: the record says it all.
    for der in chain:
        anchored = any(record.usage == DANE_TA and _matches(record, der) for record in records)
        if anchored and _leads_to(chain, der, host, now):
            return
    raise ssl.SSLError(f"the certificate of {host} is none that its TLSA records name")


def _matches(record: TlsaAssociation, der: bytes) -> bool:
    if not record.usable:
        return False
    try:
        part = der if record.selector == 0 else _public_key(der)
    except ValueError:
        return False  # a key of a kind that we cannot read
    match record.matching:
        case 0:
            found = part
        case 1:
            found = hashlib.sha256(part).digest()
        case _:
            found = hashlib.sha512(part).digest()
    return hmac.compare_digest(found, record.data)


def _public_key(der: bytes) -> bytes:
    key = x509.load_der_x509_certificate(der).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _leads_to(chain: Sequence[bytes], anchor: bytes, host: str, now: datetime) -> bool:
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        store = Store([x509.load_der_x509_certificate(anchor)])
        rules = PolicyBuilder().store(store).time(now).extension_policies(ca_policy=_AUTHORITY, ee_policy=_SERVER)
        verifier = rules.build_server_verifier(x509.DNSName(host))
        verifier.verify(certificates[0], certificates[1:])
    except (VerificationError, ValueError):
        return False
    return True
