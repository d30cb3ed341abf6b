"""What the first row of a CSV names: the column of the addresses, that of the time zones, and merge fields. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from postroad.errors import DataError

MAX_COLUMNS = 200
ADDRESS = "address"
TIME_ZONE = "time_zone"
STREET_ADDRESS = "street_address"
"""The merge field of a column `Address` in a file whose e-mail addresses are in another column, as in Mailchimp's."""

# Outlook, HubSpot, Mailchimp, Brevo and Salesforce, the first of them in its languages.
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
"""What exports call the column of the addresses. The first set that has a column of a file holds for it: `address` is a
postal address beside `email`."""
_ZONE_NAMES = ("time_zone", "timezone", "tz", "zeitzone")


def name_columns(titles: Sequence[str]) -> tuple[str, ...]:
    """Return the name of each column for its title. Titles at the end that are empty name no columns.

    No title is quoted in an error: the file may be another than what was meant.

    Raises:
        DataError: Without a place. A column has no name, two have the same, or no column holds the addresses.
    """
    named = len(titles) - next((place for place, title in enumerate(reversed(titles)) if title.strip()), len(titles))
    if not named:
        raise DataError("the first line names no columns", remedy="Its first line must, one of them `address`.")
    if named > MAX_COLUMNS:
        raise DataError(f"{named} columns, and {MAX_COLUMNS} is the most", remedy="Remove columns that are not used.")
    columns = _meanings([_identifier(title) for title in titles[:named]])
    for number, name in enumerate(columns, start=1):
        if not name or not name.isidentifier():
            raise DataError(
                f"column {number} has no name that could be a merge field",
                remedy="Use letters, digits and underscores, a letter first.",
            )
        if name in columns[: number - 1]:
            raise _same_name(columns.index(name) + 1, number, name, titles)
    if ADDRESS not in columns:
        raise DataError(
            f"there is no column `address` (or `email`) among the {len(columns)} of the first line",
            remedy="Name the column that holds the e-mail addresses `address`, and separate columns by commas, "
            "semicolons or tabs.",
        )
    return tuple(columns)


def holds_addresses(titles: Sequence[str]) -> bool:
    """Return whether one of the titles is that of a column of addresses."""
    return ADDRESS in _meanings([_identifier(title) for title in titles])


def _meanings(names: Sequence[str]) -> list[str]:
    """Return what columns of these names are called here."""
    of_addresses = next((known for known in _ADDRESS_NAMES if known.intersection(names)), frozenset[str]())
    meanings = {
        ADDRESS: STREET_ADDRESS,
        **dict.fromkeys(_ZONE_NAMES, TIME_ZONE),
        **dict.fromkeys(of_addresses, ADDRESS),
    }
    return [meanings.get(name, name) for name in names]


def _same_name(first: int, second: int, name: str, titles: Sequence[str]) -> DataError:
    why = ", as letter case, spaces and signs do not count"
    if titles[first - 1].strip() == titles[second - 1].strip():
        why = ""
    elif name == ADDRESS:
        why = ": each could hold the e-mail addresses"
    elif name == TIME_ZONE:
        why = ": each could hold the time zones"
    return DataError(f"columns {first} and {second} have one name{why}", remedy="Rename or remove one of them.")


def _identifier(title: str) -> str:
    # Composed, because macOS writes é as two characters. Not \W: it matches the marks that Hindi and Thai spell with.
    text = unicodedata.normalize("NFC", title.strip().lower())
    words = "".join(character if f"a{character}".isidentifier() else " " for character in text).split()
    return "_".join(words).strip("_")
