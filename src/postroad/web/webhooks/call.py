"""One call of a mail service, and why one is refused."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import msgspec

SKEW_MS = 300_000
"""A signature may be so much younger than our clock says."""


@dataclass(frozen=True, kw_only=True)
class WebhookRequest:
    """What came: fields of its header, names in lower case, its body as it is, and when."""

    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    now_ms: int


@dataclass(frozen=True, kw_only=True)
class VerifiedRequest:
    """What a call that was verified brings. ``token``: what it may come with once only."""

    document: object
    token: str | None = None


class WebhookRefusedError(Exception):
    """The call is not the service's, or not to be believed. ``status``: what it is answered; ``why`` is for our log."""

    def __init__(self, why: str, status: int = 403) -> None:
        super().__init__(why)
        self.status = status


Verify = Callable[[WebhookRequest], Awaitable[VerifiedRequest | None]]
"""Says what a call brings; None: it is the service's, and brings no event. Raises RefusedError, UnavailableError."""

CheckHeader = Callable[[Mapping[str, str]], None]
"""Looks at the header, before the body is read. Raises RefusedError."""


def read_json(body: bytes) -> object:
    """Raises RefusedError."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise WebhookRefusedError("the body is not JSON", 400) from None


def require_recent(at_ms: float, now_ms: int, window_ms: int) -> None:
    """Raises RefusedError for what was signed too long ago, or will be signed only later."""
    if at_ms < now_ms - window_ms:
        raise WebhookRefusedError(f"its signature is {(now_ms - at_ms) / 1000:.0f} s old")
    if at_ms > now_ms + SKEW_MS:
        raise WebhookRefusedError(f"its signature is of {(at_ms - now_ms) / 1000:.0f} s from now")


def same(given: str, wanted: str) -> bool:
    """Compare in a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
