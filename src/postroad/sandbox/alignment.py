"""What a receiver sees of a message's authentication without asking the DNS: signatures, and whose they are."""

from __future__ import annotations

import re
from email.parser import BytesHeaderParser
from email.policy import default
from email.utils import parseaddr
from typing import assert_never

from postroad.sandbox.rules import MissingAuth

#: RFC 6376 §3.5: the signing domain is the tag d=.
_SIGNING_DOMAIN = re.compile(r"(?:^|;)\s*d\s*=\s*([^;\s]+)")


def lacks(what: MissingAuth, content: bytes, return_path: str) -> bool:
    """Whether a message, as received, lacks what a receiver asks for. ``return_path``: its envelope sender."""
    # RFC 5322 §2.1: the header ends at the first empty line.
    headers = BytesHeaderParser(policy=default).parsebytes(content.partition(b"\r\n\r\n")[0])
    signatures = [str(signature) for signature in headers.get_all("DKIM-Signature", [])]
    match what:
        case MissingAuth.SIGNATURE:
            return not signatures
        case MissingAuth.ALIGNMENT:
            author = _domain_of(parseaddr(str(headers.get("From", "")))[1])
            signers = [found[1].lower() for each in signatures if (found := _SIGNING_DOMAIN.search(each))]
            return not any(_aligned(author, domain) for domain in (*signers, _domain_of(return_path)))
        case _:
            assert_never(what)


def _domain_of(address: str) -> str:
    return address.rpartition("@")[2].lower()


def _aligned(one: str, other: str) -> bool:
    """Relaxed alignment (RFC 7489 §3.1), as far as it shows without a list of public suffixes.

    Two subdomains of one organisation are aligned for a receiver too; here one must lie within the other, or both
    share all but their first label and at least two of those.
    """
    if not one or not other:
        return False
    if one == other or one.endswith(f".{other}") or other.endswith(f".{one}"):
        return True
    parent = one.partition(".")[2]
    return parent.count(".") >= 1 and parent == other.partition(".")[2]
