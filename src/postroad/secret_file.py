"""Secrets that are made once and kept in a file that only its owner can read."""

from __future__ import annotations

import secrets
from pathlib import Path

from postroad.errors import StateError

KEY_BYTES = 32


def read_secret(path: Path) -> str | None:
    """Return the secret in a file; None if there is no such file.

    Raises:
        StateError: The file is empty. A secret of no characters protects nothing.
    """
    try:
        secret = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    if not secret:
        raise StateError("the file of a secret is empty", where=str(path), remedy="Restore it, or delete it.")
    return secret


def read_or_make_secret(path: Path, prefix: str = "") -> str:
    """Return the secret in a file; generate it first, with this prefix, if there is no such file.

    Processes that start together get the same secret: the file appears with its content, and the first one counts.

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
