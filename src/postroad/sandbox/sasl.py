"""AUTH mechanisms as generators, which yield challenges, receive responses, and return the user name.

None as user name means that the credentials are wrong. The caller does the base64 coding.
"""

from __future__ import annotations

import hmac
from collections.abc import Generator, Mapping
from typing import assert_never

from postroad.sandbox.config import AuthMechanism

Exchange = Generator[bytes, bytes, str | None]


def exchange(mechanism: AuthMechanism, credentials: Mapping[str, str], initial: bytes | None, nonce: str) -> Exchange:
    """Return the server side of one authentication. ``nonce``: the challenge of CRAM-MD5."""
    match mechanism:
        case AuthMechanism.PLAIN:
            return _plain(credentials, initial)
        case AuthMechanism.LOGIN:
            return _login(credentials, initial)
        case AuthMechanism.CRAM_MD5:
            return _cram_md5(credentials, nonce)
        case _:
            assert_never(mechanism)


def _plain(credentials: Mapping[str, str], initial: bytes | None) -> Exchange:
    """Check PLAIN (RFC 4616): authorization identity, user and password, separated by NUL."""
    response = initial if initial is not None else (yield b"")
    fields = response.split(b"\0")
    if len(fields) != 3:
        return None
    return _checked(credentials, fields[1], fields[2])


def _login(credentials: Mapping[str, str], initial: bytes | None) -> Exchange:
    """Check LOGIN (draft-murchison-sasl-login; there is no RFC)."""
    user = initial if initial is not None else (yield b"Username:")
    password = yield b"Password:"
    return _checked(credentials, user, password)


def _cram_md5(credentials: Mapping[str, str], nonce: str) -> Exchange:
    """Check CRAM-MD5 (RFC 2195 §2): user, space, HMAC-MD5 of the challenge in hexadecimal."""
    challenge = nonce.encode()
    response = yield challenge
    user, _, digest = response.rpartition(b" ")
    name = user.decode("utf-8", "replace")
    expected = hmac.new(credentials.get(name, "").encode(), challenge, "md5").hexdigest()
    known = hmac.compare_digest(expected.encode(), digest)
    return name if known and name in credentials else None


def _checked(credentials: Mapping[str, str], user: bytes, password: bytes) -> str | None:
    name = user.decode("utf-8", "replace")
    known = hmac.compare_digest(credentials.get(name, "").encode(), password)
    return name if known and name in credentials else None
