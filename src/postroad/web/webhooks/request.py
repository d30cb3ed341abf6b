"""Types and checks that the webhooks share."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import msgspec

MAX_CLOCK_SKEW_MS = 300_000
"""Maximum clock skew by which a signature may be in the future."""


@dataclass(frozen=True, kw_only=True)
class WebhookRequest:
    """One request: header fields with names in lower case, raw body, and time of receipt."""

    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    now_ms: int


@dataclass(frozen=True, kw_only=True)
class VerifiedRequest:
    """Content of a verified request. ``token``: a token that is valid once."""

    document: object
    token: str | None = None


class WebhookRefusedError(Exception):
    """The request is not authentic or not valid. ``status``: HTTP status of the response. ``reason``: for the log."""

    def __init__(self, reason: str, status: int = 403) -> None:
        super().__init__(reason)
        self.status = status


Verify = Callable[[WebhookRequest], Awaitable[VerifiedRequest | None]]
"""Verifies a request. Returns None if it has no event. Raises WebhookRefusedError, UnavailableError."""

CheckHeader = Callable[[Mapping[str, str]], None]
"""Checks the header before the body is read. Raises WebhookRefusedError."""


def parse_json(body: bytes) -> object:
    """Parse a JSON body. Raises WebhookRefusedError."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise WebhookRefusedError("the body is not JSON", 400) from None


def require_recent(at_ms: float, now_ms: int, window_ms: int) -> None:
    """Check that a signature is neither too old nor in the future.

    Args:
        at_ms: Time of the signature.
        now_ms: Current time.
        window_ms: Maximum age, in milliseconds.

    Raises:
        WebhookRefusedError: The time is outside the window.
    """
    if at_ms < now_ms - window_ms:
        raise WebhookRefusedError(f"its signature is {(now_ms - at_ms) / 1000:.0f} s old")
    if at_ms > now_ms + MAX_CLOCK_SKEW_MS:
        raise WebhookRefusedError(f"its signature is {(at_ms - now_ms) / 1000:.0f} s from now")


def constant_time_equal(given: str, expected: str) -> bool:
    """Return whether two strings are equal, in time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())
