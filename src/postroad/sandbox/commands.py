"""Parses the arguments of MAIL and RCPT (RFC 5321 §4.1.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from postroad.sandbox.config import Extension
from postroad.sandbox.phrases import OrdinaryReply

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+"
_LOCAL_PART = rf'(?:{_ATOM}(?:\.{_ATOM})*|"(?:[^"\\\r\n]|\\.)*")'
_LABEL = r"[A-Za-z0-9\u0080-\U0010ffff](?:[A-Za-z0-9\-\u0080-\U0010ffff]*[A-Za-z0-9\u0080-\U0010ffff])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Za-z0-9:.\-]+\])"
_MAILBOX = rf"{_LOCAL_PART}@{_DOMAIN}"
# A source route is accepted and ignored: RFC 5321 §4.1.1.3, appendix C.
_ROUTE = rf"(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"
_PARAMETERS = r"((?: +[A-Za-z0-9][A-Za-z0-9\-]*(?:=[^\s=]+)?)*) *"
# IGNORECASE applies to the keywords only: with the large character ranges above, compiling takes 0.1 s.
_FROM = re.compile(rf"(?i:FROM):<(?:{_ROUTE}({_MAILBOX}))?>{_PARAMETERS}")
_TO = re.compile(rf"(?i:TO):<(?:{_ROUTE}({_MAILBOX})|((?i:postmaster)))>{_PARAMETERS}")

#: RFC 5321 §4.5.3.1.1 to §4.5.3.1.3, in octets.
MAX_LOCAL_PART, MAX_DOMAIN, MAX_PATH = 64, 255, 256


def parse_from(arguments: str) -> tuple[str, dict[str, str]] | OrdinaryReply:
    """Return the sender (empty for the null sender) and the parameters, or the reply that rejects the command."""
    match = _FROM.fullmatch(arguments)
    if match is None:
        return OrdinaryReply.MAIL_SYNTAX
    address = match[1] or ""
    return _too_long(address) or (address, _parameters(match[2]))


def parse_to(arguments: str) -> tuple[str, dict[str, str]] | OrdinaryReply:
    """Return the recipient and the parameters, or the reply that rejects the command.

    ``postmaster`` needs no domain (RFC 5321 §4.1.1.3).
    """
    match = _TO.fullmatch(arguments)
    if match is None:
        return OrdinaryReply.RCPT_SYNTAX
    address = match[1] or match[2]
    return _too_long(address) or (address, _parameters(match[3]))


def parameter_refusal(
    parameters: Mapping[str, str], offers: Callable[[Extension], bool], max_message_bytes: int
) -> OrdinaryReply | None:
    """Return the reply that rejects the parameters of MAIL, or None.

    Args:
        parameters: Values by keyword.
        offers: Whether an extension is offered to the client.
        max_message_bytes: The size limit.

    Returns:
        The reply, or None if all parameters are valid.
    """
    for keyword, value in parameters.items():
        match keyword:
            case "SIZE" if offers(Extension.SIZE):
                if not (value.isascii() and value.isdigit() and len(value) <= 20):
                    return OrdinaryReply.SIZE_SYNTAX
                if int(value) > max_message_bytes:
                    return OrdinaryReply.TOO_LARGE
            case "BODY" if offers(Extension.EIGHTBITMIME):
                if value.upper() not in ("7BIT", "8BITMIME"):
                    return OrdinaryReply.BODY_SYNTAX
            case "SMTPUTF8" if offers(Extension.SMTPUTF8) and not value:
                pass
            case "AUTH" if offers(Extension.AUTH) and value:
                pass  # RFC 4954 §5: accepted, and without any effect here
            case _:
                return OrdinaryReply.UNKNOWN_PARAMETER
    return None


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
