"""DANE for SMTP (RFC 7672): the certificate must match the TLSA records in the receiver's signed DNS."""

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

# Private authorities do not follow the certificate profile of browsers. Names, dates and signatures are checked.
_SERVER = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
_AUTHORITY = ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, Criticality.AGNOSTIC, lambda _policy, _certificate, extension: _require_ca(extension)
)

DANE_TA, DANE_EE = 2, 3
"""RFC 7672 §3.1: the two usages of SMTP. Usages 0 and 1 are unusable (§3.1.3)."""


class TlsaAssociation(NamedTuple):
    """One TLSA record (RFC 6698 §2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes

    @property
    def usable(self) -> bool:
        """Whether a certificate can match it. A digest of the wrong length is malformed (RFC 6698 §4.1)."""
        size = {0: len(self.data), 1: 32, 2: 64}.get(self.matching)
        return self.usage in (DANE_TA, DANE_EE) and self.selector in (0, 1) and len(self.data) == size


def _require_ca(constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("a certificate that is not an authority's signed another")


def peer_chain(connection: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
    """Return the certificates that the server sent, as DER, its own first."""
    if hasattr(connection, "get_unverified_chain"):  # Python 3.13
        return list(connection.get_unverified_chain())
    inner = connection._sslobj  # type: ignore[union-attr]  # before 3.13 the method is private
    return [certificate.public_bytes(2) for certificate in inner.get_unverified_chain() or ()]  # 2: DER


def check_chain(chain: Sequence[bytes], records: Sequence[TlsaAssociation], host: str, now: datetime) -> None:
    """Check that one usable TLSA record matches the server's certificates (RFC 7672 §3.1.1, §3.1.2).

    Args:
        chain: The certificates that the server sent, as DER, its own first.
        records: The TLSA records of the host.
        host: The name that a certificate below a trust anchor (DANE-TA) must have.
        now: The time at which such a certificate must be valid.

    Raises:
        ssl.SSLError: No record matches.
    """
    if chain and any(record.usage == DANE_EE and _matches(record, chain[0]) for record in records):
        return  # RFC 7672 §3.1.1: with DANE-EE, name and dates are not checked.
    for der in chain:
        anchored = any(record.usage == DANE_TA and _matches(record, der) for record in records)
        if anchored and _is_issued_by(der, chain, host, now):
            return
    raise ssl.SSLError(f"the certificate of {host} does not match its TLSA records")


def _matches(record: TlsaAssociation, der: bytes) -> bool:
    if not record.usable:
        return False
    try:
        part = der if record.selector == 0 else _public_key(der)
    except ValueError:
        return False  # a key of an unsupported type
    match record.matching:
        case 0:
            data = part
        case 1:
            data = hashlib.sha256(part).digest()
        case _:
            data = hashlib.sha512(part).digest()
    return hmac.compare_digest(data, record.data)


def _public_key(der: bytes) -> bytes:
    key = x509.load_der_x509_certificate(der).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _is_issued_by(anchor: bytes, chain: Sequence[bytes], host: str, now: datetime) -> bool:
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        store = Store([x509.load_der_x509_certificate(anchor)])
        rules = PolicyBuilder().store(store).time(now).extension_policies(ca_policy=_AUTHORITY, ee_policy=_SERVER)
        verifier = rules.build_server_verifier(x509.DNSName(host))
        verifier.verify(certificates[0], certificates[1:])
    except (VerificationError, ValueError):
        return False
    return True
