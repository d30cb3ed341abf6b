"""Parses DKIM key records (RFC 6376 §3.6.1, RFC 8301, RFC 8463)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from postroad.dns.tags import RecordError, first_tag_is, parse_tags

ED25519_BYTES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicKey:
    """A public key.

    Attributes:
        algorithm: `rsa` or `ed25519`.
        octets: The key in `p`. Empty if it is revoked.
        bits: Length of an RSA modulus.
        testing: Whether the domain tests DKIM (`t=y`).
        faults: Faults that verifiers ignore.
    """

    algorithm: str
    octets: bytes
    bits: int = 0
    testing: bool = False
    faults: tuple[str, ...] = ()


def is_dkim(text: str) -> bool:
    """Return whether a TXT record at a selector is a key record: `p` is required, `v` is not."""
    return "p" in {part.partition("=")[0].strip().lower() for part in text.split(";")}


def has_other_version(text: str) -> bool:
    """Return whether a record begins with a version that is not DKIM1."""
    return text.partition("=")[0].strip().lower() == "v" and not first_tag_is(text, "v", "DKIM1")


def parse_key(text: str) -> PublicKey:
    """Parse a key record. Raises RecordError for a syntax error, as verifiers reject it (RFC 6376 §6.1.2)."""
    tags = parse_tags(text)
    faults = []
    if "v" in tags and tags["v"] != "DKIM1":
        raise RecordError(f"v={tags['v'][:40]}: DKIM1 is the only version")
    if "v" in tags and next(iter(tags)) != "v":
        faults.append("v=DKIM1 is not the first tag")
    if "p" not in tags:
        raise RecordError("it has no p=")
    _check_use(tags)
    try:
        packed = "".join(tags["p"].split())
        if len(packed) % 4 > 1 and not packed.endswith("="):  # The padding is optional (§2.10).
            faults.append("the base64 of p= has no padding")
            packed += "=" * (-len(packed) % 4)
        octets = base64.b64decode(packed, validate=True)
    except binascii.Error as error:
        raise RecordError(f"p= is not base64: {error}") from None
    algorithm = tags.get("k", "rsa").lower()
    testing = "y" in _list(tags.get("t", ""))
    if not octets:
        return PublicKey(algorithm=algorithm, octets=b"", testing=testing)
    match algorithm:
        case "rsa":
            bits = _rsa_bits(octets)
            return PublicKey(algorithm="rsa", octets=octets, bits=bits, testing=testing, faults=tuple(faults))
        case "ed25519" if len(octets) == ED25519_BYTES:
            return PublicKey(algorithm="ed25519", octets=octets, testing=testing, faults=tuple(faults))
        case "ed25519":
            raise RecordError(f"an Ed25519 key is {ED25519_BYTES} octets long, and p= has {len(octets)}")
        case other:
            raise RecordError(f"k={other} is not an algorithm of DKIM")


def _check_use(tags: Mapping[str, str]) -> None:
    if "h" in tags and "sha256" not in _list(tags["h"]):
        raise RecordError(f"h={tags['h']} does not allow SHA-256, the only hash that counts (RFC 8301 §3.1)")
    if not {"*", "email"} & _list(tags.get("s", "*")):
        raise RecordError(f"s={tags['s']} does not allow it for email")


def _list(value: str) -> set[str]:
    return {item.strip().lower() for item in value.split(":")}


def _rsa_bits(octets: bytes) -> int:
    try:
        key = load_der_public_key(octets)  # a SubjectPublicKeyInfo, or an RSAPublicKey as in RFC 6376
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RecordError(f"p= is not an RSA key: {error}") from None
    if not isinstance(key, RSAPublicKey):
        raise RecordError("p= is not an RSA key, but k= is rsa")
    return key.key_size
