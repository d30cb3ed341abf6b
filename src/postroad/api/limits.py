"""Limits the requests of each API key, and of each address without a valid key."""

from __future__ import annotations

from typing import Final

from postroad.clock import Clock
from postroad.settings import ApiSettings, RateSetting
from postroad.web.rate_limit import RateLimiter

WITHOUT_KEY: Final = RateSetting(count=60, per_ms=60_000)
"""Requests of one address without a valid key, after which the answer is to wait."""


class ApiLimits:
    """Limits requests by the generic cell rate algorithm, in the memory of the process."""

    def __init__(self, settings: ApiSettings, clock: Clock) -> None:
        self._rate = settings.rate
        self._keys = RateLimiter(settings.rate, clock)
        self._addresses = RateLimiter(WITHOUT_KEY, clock)

    def wait_s(self, prefix: str) -> int:
        """Count a request of a key and return 0. Over the limit, return the seconds until the next one is allowed."""
        return self._keys.wait_s(prefix)

    def wait_without_key_s(self, address: str) -> int:
        """Count a request without a valid key, as `wait_s` does. Requests with a valid key never wait for it."""
        return self._addresses.wait_s(address)

    def headers(self, prefix: str) -> dict[str, str]:
        """Return the header fields of draft-ietf-httpapi-ratelimit-headers for a key."""
        window_s = max(1, self._rate.per_ms // 1000)
        left, reset_s = self._keys.remaining(prefix)
        return {
            "RateLimit-Policy": f'"key";q={self._rate.count};w={window_s}',
            "RateLimit": f'"key";r={left};t={reset_s}',
        }
