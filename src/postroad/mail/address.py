"""Addresses (RFC 5321 §4.1.2, RFC 6531): one spelling for each mailbox."""

from __future__ import annotations

import re
import unicodedata

from email_validator import EmailNotValidError, validate_email

from postroad.errors import DataError

# What nearly every address looks like: a dot-atom of ASCII and a domain with a letter in its last label.
# email-validator, which knows the rest of the standards, takes a hundred times as long.
_PLAIN = re.compile(
    r"(?=.{1,64}@)(?P<local>[A-Za-z0-9_%+'-]+(?:\.[A-Za-z0-9_%+'-]+)*)"
    r"@(?P<domain>(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9]))",
    re.ASCII,
)
MAX_ADDRESS_OCTETS = 254  # RFC 5321 §4.5.3.1.3: a path of 256, less its angle brackets


def normalise_address(text: str) -> str:
    """Return the one spelling of an address: trimmed, lower case, its domain in IDNA's ASCII form.

    The local part is put in lower case too: no receiver of note tells apart what differs in case alone, and a
    suppression must hold however the address is typed next time. Raises DataError with the reason.
    """
    text = text.strip()
    lowered = text.lower()
    if len(text) <= MAX_ADDRESS_OCTETS and _PLAIN.fullmatch(text) is not None and "xn--" not in lowered:
        return lowered
    if lowered.rpartition(".")[2].isdecimal():
        raise DataError("its domain ends in a number, as no domain does")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise DataError("it has a control character in it")
    try:
        valid = validate_email(text, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError as error:
        raise DataError(str(error)) from None
    return f"{valid.local_part.lower()}@{(valid.ascii_domain or valid.domain).lower()}"


def domain_of(address: str) -> str:
    """Return what follows the last @ of a normalised address."""
    return address.rpartition("@")[2]
