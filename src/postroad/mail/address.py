"""Email addresses (RFC 5321 §4.1.2, RFC 6531), normalised to one spelling for each mailbox."""

from __future__ import annotations

import re
import unicodedata

import idna
from email_validator import EmailNotValidError, validate_email

from postroad.errors import DataError

# The form of nearly every address: a dot-atom of ASCII, and a domain whose last label is letters and is not a special
# use domain (RFC 6761). email-validator covers the rest of the standards but takes a hundred times as long. It accepts
# every address that this pattern accepts.
_PLAIN = re.compile(
    r"(?=.{1,64}@)(?P<local>[A-Za-z0-9_%+'-]+(?:\.[A-Za-z0-9_%+'-]+)*)"
    r"@(?P<domain>(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+"
    r"(?!(?i:arpa|invalid|local|localhost|onion)$)[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z]))",
    re.ASCII,
)
MAX_ADDRESS_OCTETS = 254  # RFC 5321 §4.5.3.1.3: a path of 256 octets, minus its angle brackets
MAX_LOCAL_OCTETS = 64  # RFC 5321 §4.5.3.1.1


def normalise_address(text: str) -> str:
    """Normalise an address: trimmed, in lower case, its domain in IDNA's ASCII form.

    The local part is lower case too: no important receiver distinguishes case, and a suppression must apply however
    the address is spelled the next time.

    Args:
        text: The address as it was entered.

    Returns:
        The only spelling that Postroad stores.

    Raises:
        DataError: The text is not a valid address. The message is the reason.
    """
    text = text.strip()
    match = _PLAIN.fullmatch(text)
    if match is not None and len(text) <= MAX_ADDRESS_OCTETS and "xn--" not in text.lower():
        return text.lower()
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise DataError("it has a control character in it")
    try:
        # test_environment: accept `.test` (RFC 6761), to which rehearsals send.
        valid = validate_email(text, check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise DataError(str(error)) from None
    # Lower case can be decomposed: J with a caron becomes two characters. The limits apply to this spelling.
    local = unicodedata.normalize("NFC", valid.local_part.lower())
    domain = (valid.ascii_domain or valid.domain).lower()
    if "." not in domain:
        raise DataError("its domain is a single word")
    if len(local.encode()) > MAX_LOCAL_OCTETS:
        raise DataError(f"it has more than {MAX_LOCAL_OCTETS} octets before the @-sign")
    if len(local.encode()) + 1 + len(domain) > MAX_ADDRESS_OCTETS:
        raise DataError(f"it has more than {MAX_ADDRESS_OCTETS} octets")
    return f"{local}@{domain}"


def domain_of(address: str) -> str:
    """Return what follows the last @ of a normalised address."""
    return address.rpartition("@")[2]


def ascii_domain(domain: str) -> str:
    """Return a domain in A-labels (RFC 5890 §2.3.2.1), which every server accepts. Raises DataError with the reason."""
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain, uts46=True).decode()
    except idna.IDNAError as error:
        raise DataError(f"{domain!r} is not a valid domain: {error}") from None


def ascii_address(address: str) -> str:
    """Return an address with its domain in A-labels, so that only a non-ASCII local part needs SMTPUTF8 (RFC 6531)."""
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{ascii_domain(domain)}"
