"""Generates secrets and stores them in files that only the owner can read."""

from __future__ import annotations

import secrets
from pathlib import Path

from postroad.errors import StateError

KEY_BYTES = 32


def read_secret(path: Path) -> str | None:
    """Read a secret from a file.

    Args:
        path: The file.

    Returns:
        The secret, or None if the file does not exist.

    Raises:
        StateError: The file is empty.
    """
    try:
        secret = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    if not secret:
        raise StateError("the file of a secret is empty", where=str(path), remedy="Restore it, or delete it.")
    return secret


def read_or_make_secret(path: Path, prefix: str = "") -> str:
    """Read a secret from a file, and generate it first if the file does not exist.

    The file is created atomically with its content, so concurrent processes get the same secret.

    Args:
        path: The file.
        prefix: Prefix of a generated secret.

    Returns:
        The secret.

    Raises:
        StateError: The file is empty.
    """
    if (secret := read_secret(path)) is not None:
        return secret
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_text(prefix + secrets.token_urlsafe(KEY_BYTES), encoding="ascii")
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return read_or_make_secret(path, prefix)
