"""The manifest of a backup: what it contains, with digests, and the sums of the ledger in the same snapshot."""

from __future__ import annotations

import hmac
from datetime import datetime
from enum import StrEnum

import msgspec

from postroad.errors import ConfigError, DataError
from postroad.store.ledger_sums import LedgerSums

FORMAT = 1
"""Number of the format of archive and manifest that this version writes and reads."""

MANIFEST = "manifest.json"
KEY = "secret.key"
"""Names of members of an archive."""


class DatabaseKind(StrEnum):
    """Kind of the database of a backup."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


DUMPS = {DatabaseKind.SQLITE: "database.sqlite.gz", DatabaseKind.POSTGRESQL: "database.dump"}
"""Name of the member with the database, by kind."""


class FileDigest(msgspec.Struct, frozen=True):
    """Length and SHA-256 of a member of an archive."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup contains.

    ``version``: of Postroad; ``server``: of the database; ``keys``: fingerprints of the key ring, the signing key
    first.
    """

    format: int = FORMAT
    version: str
    created_at: datetime
    database: DatabaseKind
    server: str
    revision: str
    sums: LedgerSums
    keys: tuple[str, ...]
    files: dict[str, FileDigest]


class _Format(msgspec.Struct):
    format: int


def encode_manifest(manifest: Manifest) -> bytes:
    """Return a manifest as JSON with line breaks."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(text: bytes, where: str) -> Manifest:
    """Read a manifest.

    Args:
        text: JSON of `encode_manifest`.
        where: The file, for errors.

    Returns:
        The manifest.

    Raises:
        DataError: It is damaged.
        ConfigError: A newer version wrote it.
    """
    try:
        if (found := msgspec.json.decode(text, type=_Format).format) > FORMAT:
            raise ConfigError(
                f"the backup is of format {found}, and this version reads formats up to {FORMAT}",
                where=where,
                remedy="A newer version made it: install that one here.",
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"the manifest is damaged: {error}", where=where) from None
    if DUMPS[manifest.database] not in manifest.files:
        raise DataError(f"the manifest is damaged: it names no {DUMPS[manifest.database]}", where=where)
    return manifest


def fingerprint(key: str) -> str:
    """Return a name of a secret key, from which the key cannot be computed."""
    return hmac.digest(key.encode(), b"fingerprint in the manifest of a backup", "sha256").hex()[:16]
