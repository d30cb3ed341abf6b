"""Names the columns of a CSV from the titles in its first row: addresses, time zones and merge fields. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from postroad.errors import DataError

MAX_COLUMNS = 200
ADDRESS = "address"
TIME_ZONE = "time_zone"
STREET_ADDRESS = "street_address"
"""Merge field of a column `Address` in a file whose e-mail addresses are in another column, as in Mailchimp's."""

# Outlook (in several languages), HubSpot, Mailchimp, Brevo and Salesforce.
_COMMON = """
email e_mail mail emailaddress email_address e_mail_address mail_address
e_mail_adresse email_adresse emailadresse mailadresse mail_adresse e_mailadresse
adresse_de_messagerie adresse_e_mail adresse_email adresse_mail adresse_électronique courriel
dirección_de_correo_electrónico dirección_de_correo correo_electrónico correo
indirizzo_di_posta_elettronica indirizzo_posta_elettronica indirizzo_e_mail indirizzo_email
endereço_de_email endereço_de_e_mail endereço_de_correio_eletrónico endereço_de_correio_eletrônico
e_mailadres emailadres e_mail_adres adres_e_mail adres_email e_postadress e_post epost
"""
# Google Contacts, Google Workspace, Thunderbird, MailerLite, Pipedrive, Salesforce's API, shops.
_LESS_COMMON = """
e_mail_1_value email_1_value email_address_required primary_email primary_email_address subscriber subscriber_email
contact_email person_email personemail customer_email billing_email
"""
_ADDRESS_NAMES = (frozenset(_COMMON.split()), frozenset(_LESS_COMMON.split()), frozenset({ADDRESS}))
"""Names of the address column in exports of other products. The first set that matches a column of a file applies:
if a file has both `email` and `address`, then `address` is a postal address."""
_ZONE_NAMES = ("time_zone", "timezone", "tz", "zeitzone")


def name_columns(titles: Sequence[str]) -> tuple[str, ...]:
    """Return the name of each column, ignoring empty titles at the end.

    Errors do not quote titles, because the file may not be the intended one.

    Args:
        titles: Fields of the first row.

    Returns:
        One name for each column.

    Raises:
        DataError: A column has no name, two have the same name, or no column contains addresses. It has no ``where``.
    """
    named = len(titles) - next((place for place, title in enumerate(reversed(titles)) if title.strip()), len(titles))
    if not named:
        raise DataError("the first line names no columns", remedy="Name the columns there, one of them `address`.")
    if named > MAX_COLUMNS:
        raise DataError(f"{named} columns are more than {MAX_COLUMNS}", remedy="Remove columns that are not used.")
    columns = _canonical_names([merge_field_name(title) for title in titles[:named]])
    for number, name in enumerate(columns, start=1):
        if not name or not name.isidentifier():
            raise DataError(
                f"column {number} has no name that is valid for a merge field",
                remedy="Use letters, digits and underscores, a letter first.",
            )
        if name in columns[: number - 1]:
            first = columns.index(name) + 1
            raise DataError(
                f"columns {first} and {number} have the same name{_why_same(first, number, name, titles)}",
                remedy="Rename or remove one of them.",
            )
    if ADDRESS not in columns:
        raise DataError(
            f"there is no column `address` (or `email`) among the {len(columns)} of the first line",
            remedy="Name the column that holds the e-mail addresses `address`, and separate columns by commas, "
            "semicolons or tabs.",
        )
    return tuple(columns)


def has_address_column(titles: Sequence[str]) -> bool:
    """Return whether one of the titles names a column of addresses."""
    return ADDRESS in _canonical_names([merge_field_name(title) for title in titles])


def _canonical_names(names: Sequence[str]) -> list[str]:
    """Replace the usual names of address and time zone columns by ours."""
    address_names = next((known for known in _ADDRESS_NAMES if known.intersection(names)), frozenset[str]())
    canonical = {
        ADDRESS: STREET_ADDRESS,
        **dict.fromkeys(_ZONE_NAMES, TIME_ZONE),
        **dict.fromkeys(address_names, ADDRESS),
    }
    return [canonical.get(name, name) for name in names]


def _why_same(first: int, second: int, name: str, titles: Sequence[str]) -> str:
    if titles[first - 1].strip() == titles[second - 1].strip():
        return ""
    if name == ADDRESS:
        return ": each may contain the e-mail addresses"
    if name == TIME_ZONE:
        return ": each may contain the time zones"
    return ", because letter case, spaces and punctuation are ignored"


def merge_field_name(title: str) -> str:
    """Return the name of the merge field that a title becomes. It may be invalid."""
    # NFC, because macOS writes é as two characters. Not \W, because it matches combining marks of Hindi and Thai.
    text = unicodedata.normalize("NFC", title.strip().lower())
    words = "".join(character if f"a{character}".isidentifier() else " " for character in text).split()
    return "_".join(words).strip("_")
