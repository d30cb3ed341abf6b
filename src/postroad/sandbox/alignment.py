"""Checks a message's authentication without DNS: its signatures, and the alignment of their domains."""

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
    """Return whether a message lacks a form of authentication.

    Args:
        what: The form.
        content: The message as received.
        return_path: Its envelope sender.

    Returns:
        Whether it is missing.
    """
    # RFC 5322 §2.1: the header ends at the first empty line.
    headers = BytesHeaderParser(policy=default).parsebytes(content.partition(b"\r\n\r\n")[0])
    signatures = [str(signature) for signature in headers.get_all("DKIM-Signature", [])]
    match what:
        case MissingAuth.SIGNATURE:
            return not signatures
        case MissingAuth.ALIGNMENT:
            author = _domain_of(parseaddr(str(headers.get("From", "")))[1])
            signers = [match[1].lower() for value in signatures if (match := _SIGNING_DOMAIN.search(value))]
            return not any(_aligned(author, domain) for domain in (*signers, _domain_of(return_path)))
        case _:
            assert_never(what)


def _domain_of(address: str) -> str:
    return address.rpartition("@")[2].lower()


def _aligned(first: str, second: str) -> bool:
    """Return whether two domains are aligned (relaxed, RFC 7489 §3.1), approximated without public suffixes.

    One domain must be equal to or below the other, or both must have the same parent of at least two labels.
    """
    if not first or not second:
        return False
    if first == second or first.endswith(f".{second}") or second.endswith(f".{first}"):
        return True
    parent = first.partition(".")[2]
    return parent.count(".") >= 1 and parent == second.partition(".")[2]
