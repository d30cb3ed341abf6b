"""Reads the arguments of MAIL and RCPT (RFC 5321 §4.1.2). No state."""

from __future__ import annotations

import re

from postroad.sandbox.phrases import OrdinaryReply

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+"
_LOCAL_PART = rf'(?:{_ATOM}(?:\.{_ATOM})*|"(?:[^"\\\r\n]|\\.)*")'
_LABEL = r"[A-Za-z0-9\u0080-\U0010ffff](?:[A-Za-z0-9\-\u0080-\U0010ffff]*[A-Za-z0-9\u0080-\U0010ffff])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Za-z0-9:.\-]+\])"
_MAILBOX = rf"{_LOCAL_PART}@{_DOMAIN}"
# A source route is accepted and ignored: RFC 5321 §4.1.1.3, appendix C.
_ROUTE = rf"(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"
_PARAMETERS = r"((?: +[A-Za-z0-9][A-Za-z0-9\-]*(?:=[^\s=]+)?)*) *"
# Folding the case of the words alone: folding that of the ranges above takes a tenth of a second.
_FROM = re.compile(rf"(?i:FROM):<(?:{_ROUTE}({_MAILBOX}))?>{_PARAMETERS}")
_TO = re.compile(rf"(?i:TO):<(?:{_ROUTE}({_MAILBOX})|((?i:postmaster)))>{_PARAMETERS}")

#: RFC 5321 §4.5.3.1.1 to §4.5.3.1.3, in octets.
MAX_LOCAL_PART, MAX_DOMAIN, MAX_PATH = 64, 255, 256


def parse_from(arguments: str) -> tuple[str, dict[str, str]] | OrdinaryReply:
    """Return the sender (empty for the null sender) and the parameters, or the refusal."""
    found = _FROM.fullmatch(arguments)
    if found is None:
        return OrdinaryReply.MAIL_SYNTAX
    address = found[1] or ""
    return _too_long(address) or (address, _parameters(found[2]))


def parse_to(arguments: str) -> tuple[str, dict[str, str]] | OrdinaryReply:
    """Return the recipient and the parameters, or the refusal. ``postmaster`` needs no domain."""
    found = _TO.fullmatch(arguments)
    if found is None:
        return OrdinaryReply.RCPT_SYNTAX
    address = found[1] or found[2]
    return _too_long(address) or (address, _parameters(found[3]))


def _parameters(text: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for word in text.split():
        keyword, _, value = word.partition("=")
        parameters[keyword.upper()] = value
    return parameters


def _too_long(address: str) -> OrdinaryReply | None:
    octets = address.encode()
    if len(octets) <= MAX_LOCAL_PART:
        return None
    local_part, _, domain = octets.rpartition(b"@")
    path = len(octets) + 2  # with its angle brackets
    if len(local_part) > MAX_LOCAL_PART or len(domain) > MAX_DOMAIN or path > MAX_PATH:
        return OrdinaryReply.ADDRESS_TOO_LONG
    return None
