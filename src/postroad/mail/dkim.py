"""DKIM signatures (RFC 6376): rsa-sha256 and ed25519-sha256 (RFC 8463), canonicalisation relaxed/relaxed."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

from postroad.errors import ConfigError

RSA_BITS = 2048
MIN_RSA_BITS = 1024  # RFC 8301 §3.2: receivers ignore signatures by shorter keys
SIGNED = (
    b"from",
    b"to",
    b"subject",
    b"date",
    b"message-id",
    b"reply-to",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
)
"""Header fields that a signature covers, if the message has them."""
OVERSIGNED = (b"from", b"to", b"subject", b"date", b"reply-to")
"""Oversigned fields: named once more than they occur, so that adding one breaks the signature (RFC 6376 §8.15)."""

_BLANKS = re.compile(rb"[ \t]{2,}|\t")
_BLANK_ENDS = re.compile(rb"[ \t]+(?=\r\n)")
_FOLDS = re.compile(rb"[ \t\r\n]+")
_KEY_LINE = 72


class Algorithm(StrEnum):
    """Signature algorithm, as in the tag ``a`` (RFC 6376 §3.5)."""

    RSA = "rsa-sha256"
    ED25519 = "ed25519-sha256"


@dataclass(frozen=True, kw_only=True)
class DkimKey:
    """A private key, and the DNS name of its public key. The representation does not show the key.

    Attributes:
        domain: The signing domain (tag ``d``).
        selector: The selector (tag ``s``).
        private_key: The key.
        active_from: Time from which the key signs. None: always.
    """

    domain: str
    selector: str
    private_key: RSAPrivateKey | Ed25519PrivateKey
    active_from: datetime | None = None

    @property
    def algorithm(self) -> Algorithm:
        return Algorithm.RSA if isinstance(self.private_key, RSAPrivateKey) else Algorithm.ED25519

    @property
    def record_name(self) -> str:
        """Name of the TXT record (RFC 6376 §3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def record(self) -> str:
        """Text of the TXT record (RFC 6376 §3.6.1; RFC 8463 §4 for Ed25519: the bare key)."""
        public = self.private_key.public_key()
        encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        if self.algorithm is Algorithm.ED25519:
            encoding, form = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        kind = self.algorithm.partition("-")[0]
        return f"v=DKIM1; k={kind}; p={b64encode(public.public_bytes(encoding, form)).decode()}"

    def sign(self, octets: bytes) -> bytes:
        if isinstance(self.private_key, RSAPrivateKey):
            return rsa_signature(self.private_key, octets)
        return self.private_key.sign(sha256(octets).digest())  # RFC 8463 §3


def rsa_signature(key: RSAPrivateKey, octets: bytes) -> bytes:
    """Return the rsa-sha256 signature: RSASSA-PKCS1-v1_5 with SHA-256 (RFC 6376 §3.3.1)."""
    return key.sign(octets, PKCS1v15(), SHA256())


def generate_key(algorithm: Algorithm) -> bytes:
    """Generate a private key, in PEM (PKCS #8)."""
    key = Ed25519PrivateKey.generate() if algorithm is Algorithm.ED25519 else generate_private_key(65537, RSA_BITS)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def parse_key(pem: bytes, *, where: str) -> RSAPrivateKey | Ed25519PrivateKey:
    """Parse a private key in PEM.

    Args:
        pem: The key.
        where: The setting or file of the key, for errors.

    Returns:
        The key.

    Raises:
        ConfigError: It is not a key for DKIM. The error shows no part of it.
    """
    remedy = "`postroad dkim keygen` makes one."
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise ConfigError("the key is encrypted with a passphrase", where=where, remedy="Decrypt it.") from None
    except Exception:  # Invalid keys raise several types of exceptions, not only ValueError.
        raise ConfigError("the key is not a private key in PEM", where=where, remedy=remedy) from None
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise ConfigError("the key is neither RSA nor Ed25519, as DKIM requires", where=where, remedy=remedy)
    if isinstance(key, RSAPrivateKey) and key.key_size < MIN_RSA_BITS:
        raise ConfigError(
            f"an RSA key of {key.key_size} bits is too weak: receivers ignore it (RFC 8301)",
            where=where,
            remedy=remedy,
        )
    return key


def txt_strings(record: str) -> list[str]:
    """Split the text of a TXT record into strings of at most 255 octets (RFC 1035 §3.3)."""
    return [record[start : start + 255] for start in range(0, len(record), 255)]


def zone_line(key: DkimKey) -> str:
    """Return the record as a line of a zone file."""
    strings = " ".join(f'"{part}"' for part in txt_strings(key.record))
    return f"{key.record_name}. IN TXT ( {strings} )"


class DkimSigner:
    """Signs with one key of each algorithm: the one that became active last."""

    def __init__(self, keys: Sequence[DkimKey]) -> None:
        always = datetime.min.replace(tzinfo=UTC)
        self._keys = sorted(keys, key=lambda key: key.active_from or always)

    def keys_at(self, now: datetime) -> list[DkimKey]:
        """Return the keys that sign at a time, one of each algorithm."""
        active = {key.algorithm: key for key in self._keys if key.active_from is None or key.active_from <= now}
        return [active[algorithm] for algorithm in Algorithm if algorithm in active]

    def prepare(self, header: Sequence[bytes], body_hash: bytes, now: datetime) -> tuple[PendingSignature, ...]:
        """Prepare the signatures of a message, except for the use of the private keys.

        Args:
            header: The header fields, each with its CRLF.
            body_hash: SHA-256 of `relaxed_body`.
            now: The time of the signatures, which chooses the keys.

        Returns:
            One pending signature for each algorithm.
        """
        fields = dict(map(_canonical_field, header))
        names = tuple([name for name in SIGNED if name in fields])
        covered = b"".join([fields[name] for name in names])
        h = _signed_names(names)
        return tuple([_pending_signature(key, covered, h, body_hash, now) for key in self.keys_at(now)])


@lru_cache(maxsize=256)
def _canonical_field(field: bytes) -> tuple[bytes, bytes]:
    """Return name and canonical form of a field. Cached: half of the fields are the same in successive messages."""
    return field.partition(b":")[0].lower(), relaxed_field(field)


@lru_cache(maxsize=64)
def _signed_names(names: tuple[bytes, ...]) -> bytes:
    """Return the value of the tag ``h``, folded."""
    h = b":".join([*names, *OVERSIGNED])
    return h.replace(b":list-unsubscribe:", b":\r\n list-unsubscribe:").replace(b":mime-", b":\r\n mime-")


@dataclass(frozen=True, kw_only=True)
class PendingSignature:
    """A DKIM-Signature field without its signature, and the octets to sign."""

    key: DkimKey
    field: bytes
    octets: bytes

    def sign(self) -> bytes:
        """Sign, and return the complete field with its CRLF. RSA takes 0.3 ms and releases the GIL."""
        return self.field_with(self.key.sign(self.octets))

    def field_with(self, signature: bytes) -> bytes:
        """Return the complete field with a given signature of `octets`."""
        signature = b64encode(signature)
        lines = [signature[start : start + _KEY_LINE] for start in range(0, len(signature), _KEY_LINE)]
        return self.field + b"\r\n ".join(lines) + b"\r\n"


def _pending_signature(key: DkimKey, covered: bytes, h: bytes, body_hash: bytes, now: datetime) -> PendingSignature:
    field = b"DKIM-Signature: v=1; a=%b; c=relaxed/relaxed; d=%b;\r\n s=%b; t=%d;\r\n h=%b;\r\n bh=%b;\r\n b=" % (
        key.algorithm.encode(),
        key.domain.encode(),
        key.selector.encode(),
        int(now.timestamp()),
        h,
        b64encode(body_hash),
    )
    # RFC 6376 §3.7: the field itself comes last, with an empty signature and without its CRLF. The field made above
    # is canonical once it is unfolded.
    canonical = b"dkim-signature:" + field.partition(b": ")[2].replace(b"\r\n", b"")
    return PendingSignature(key=key, field=field, octets=covered + canonical)


def relaxed_field(field: bytes) -> bytes:
    """Canonical form of a header field, with its CRLF (RFC 6376 §3.4.2)."""
    name, _, value = field.rstrip(b"\r\n").partition(b":")
    if b"\n" in value or b"\t" in value or b"  " in value:
        value = _FOLDS.sub(b" ", value)
    return b"%b:%b\r\n" % (name.rstrip(b" \t").lower(), value.strip(b" "))


def relaxed_lines(octets: bytes) -> bytes:
    """Return a part of a body in canonical form (RFC 6376 §3.4.4 (a)). No run of blanks may cross its ends."""
    if b"  " in octets or b"\t" in octets:
        octets = _BLANKS.sub(b" ", octets)
    return _BLANK_ENDS.sub(b"", octets) if b" \r\n" in octets else octets


def relaxed_body(lines: bytes) -> bytes:
    """Return a body of canonical lines in canonical form: without empty lines at its end (RFC 6376 §3.4.4 (b))."""
    kept = lines.rstrip(b" \t\r\n")
    return kept + b"\r\n" if kept else b""
