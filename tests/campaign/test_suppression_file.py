"""Lists of suppressions: an export can be imported, and errors name line and column."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from postroad.campaign.suppression_file import EntryDefaults, read_entries, suppression_key, write_entries
from postroad.errors import DataError
from postroad.mail.address_hash import AddressHashes, is_hash
from postroad.store.suppression import Entry, Listed, SuppressionReason

NOW = datetime(2026, 5, 4, 8, 30, tzinfo=UTC)
HASHES = AddressHashes(SecretStr("a key of the tests"))
HASH = HASHES("ada@example.com")


def defaults(*, hashed: bool = False) -> EntryDefaults:
    return EntryDefaults(
        reason=SuppressionReason.MANUAL,
        source="list.csv",
        now=NOW,
        audiences={"readers": 7},
        hash_of=HASHES if hashed else None,
    )


def read(tmp_path: Path, text: str, *, hashed: bool = False) -> list[Entry]:
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8")
    return read_entries(path, defaults(hashed=hashed))


def test_a_list_of_addresses_gets_the_default_values(tmp_path: Path) -> None:
    assert read(tmp_path, "email,name\n Ada@Example.COM ,Ada\n") == [
        Entry("ada@example.com", SuppressionReason.MANUAL, "list.csv", NOW, 0)
    ]


def test_an_export_can_be_imported(tmp_path: Path) -> None:
    listed = [
        Listed("ada@example.com", None, "unsubscribe", "one-click, at once", NOW),
        Listed("@example.org", "readers", "complaint", 'a "report"', NOW),
        Listed(HASH, None, "manual", "command line", NOW),
    ]
    file = io.StringIO()
    write_entries(file, listed)
    entries = read(tmp_path, file.getvalue())
    assert entries == [
        Entry("ada@example.com", SuppressionReason.UNSUBSCRIBE, "one-click, at once", NOW, 0),
        Entry("@example.org", SuppressionReason.COMPLAINT, 'a "report"', NOW, 7),
        Entry(HASH, SuppressionReason.MANUAL, "command line", NOW, 0),
    ]


def test_hashing_applies_to_addresses_and_not_to_domains(tmp_path: Path) -> None:
    entries = read(tmp_path, f"address\nAda@example.com\n@Example.org\n{HASH.upper()}\n", hashed=True)
    assert [one.address for one in entries] == [HASH, "@example.org", HASH]


@pytest.mark.parametrize(
    ("row", "column", "why"),
    [
        ("nobody,,,", "address", "@-sign"),
        ("@,,,", "address", "something after the @-sign"),
        ("@a b.example,,,", "address", "invalid characters"),
        ("#12ab,,,", "address", "64 hexadecimal digits"),
        ("b@example.com,strangers,,", "audience", "no audience with that name"),
        ("b@example.com,,boredom,", "reason", "not one of unsubscribe"),
        ("b@example.com,,,yesterday", "created_at", "not a timestamp"),
    ],
)
def test_an_invalid_row_is_named(tmp_path: Path, row: str, column: str, why: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, f"address,audience,reason,created_at\na@example.com,,,\n{row}\n")
    assert (caught.value.where or "").endswith("list.csv, line 3")
    assert caught.value.message.startswith(f"{column}: ")
    assert why in caught.value.message


def test_a_domain_has_one_spelling() -> None:
    assert suppression_key("@EXAMPLE.com") == "@example.com"
    assert suppression_key("@bücher.example") == "@xn--bcher-kva.example"


def test_a_hash_needs_the_key() -> None:
    assert is_hash(HASH)
    assert HASHES("ada@example.com") == HASH
    assert AddressHashes(SecretStr("another key"))("ada@example.com") != HASH
    assert "key of" not in repr(HASHES)
