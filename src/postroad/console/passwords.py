"""Hashes and verifies passwords by argon2id (RFC 9106)."""

from __future__ import annotations

import asyncio
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from postroad.errors import UsageError

MIN_CHARACTERS = 12
MAX_CHARACTERS = 1_000
MAX_CONCURRENT = 2
"""Verifications at a time. Each takes 64 MiB."""


_HASHER = PasswordHasher()


@cache
def _hash_for_unknown_users(hasher: PasswordHasher) -> str:
    return hasher.hash("no user has this password")


class Passwords:
    """Hashes and verifies passwords. An unknown user takes the same time as a wrong password."""

    def __init__(self, hasher: PasswordHasher = _HASHER) -> None:
        self._hasher = hasher
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._unknown = _hash_for_unknown_users(hasher)

    def hash(self, password: str) -> str:
        """Return the hash of a new password.

        Raises:
            UsageError: The password is too short or too long.
        """
        require_password(password)
        return self._hasher.hash(password)

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Return whether the password is right. None as hash: the user is unknown, and the result is False."""
        async with self._slots:
            right = await asyncio.to_thread(self._matches, password_hash or self._unknown, password[:MAX_CHARACTERS])
        return right and password_hash is not None

    def needs_rehash(self, password_hash: str) -> bool:
        """Return whether a hash has other parameters than new ones get."""
        return self._hasher.check_needs_rehash(password_hash)

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (Argon2Error, InvalidHashError):
            return False


def require_password(password: str) -> None:
    """Check the length of a new password.

    Raises:
        UsageError: It is too short or too long.
    """
    if not MIN_CHARACTERS <= len(password) <= MAX_CHARACTERS:
        raise UsageError(
            f"the password has {len(password)} characters",
            remedy=f"Choose one of {MIN_CHARACTERS} to {MAX_CHARACTERS:,} characters: several words are easy to type.",
        )
