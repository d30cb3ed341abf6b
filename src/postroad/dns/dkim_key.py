"""A DKIM key record: RFC 6376 §3.6.1, RFC 8301, RFC 8463."""

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
    """A public key. ``octets``: as `p` has them; empty: revoked. ``bits``: of an RSA modulus.

    ``faults``: what verifiers pass over.
    """

    algorithm: str
    octets: bytes
    bits: int = 0
    testing: bool = False
    faults: tuple[str, ...] = ()


def is_dkim(text: str) -> bool:
    """Whether a TXT record at a selector is a key record: `v` may be left out, `p` may not."""
    return "p" in {part.partition("=")[0].strip().lower() for part in text.split(";")}


def has_other_version(text: str) -> bool:
    """Whether a record begins with a version that is not DKIM1."""
    return text.partition("=")[0].strip().lower() == "v" and not first_tag_is(text, "v", "DKIM1")


def parse_key(text: str) -> PublicKey:
    """Parse a key record. Verifiers refuse what does not follow the syntax (RFC 6376 §6.1.2). Raises RecordError."""
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
        if len(packed) % 4 > 1 and not packed.endswith("="):  # The syntax of §2.10 does not need the padding.
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
            raise RecordError(f"k={other} is no algorithm of DKIM")


def _check_use(tags: Mapping[str, str]) -> None:
    if "h" in tags and "sha256" not in _list(tags["h"]):
        raise RecordError(f"h={tags['h']} does not allow SHA-256, the only hash that counts (RFC 8301 §3.1)")
    if not {"*", "email"} & _list(tags.get("s", "*")):
        raise RecordError(f"s={tags['s']} does not allow it for email")


def _list(value: str) -> set[str]:
    return {item.strip().lower() for item in value.split(":")}


def _rsa_bits(octets: bytes) -> int:
    try:
        key = load_der_public_key(octets)  # of a SubjectPublicKeyInfo, or of a bare RSAPublicKey as RFC 6376 has it
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RecordError(f"p= is no RSA key: {error}") from None
    if not isinstance(key, RSAPublicKey):
        raise RecordError("p= is no RSA key, and k= says that it is one")
    return key.key_size
