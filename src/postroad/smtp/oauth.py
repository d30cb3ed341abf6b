"""Access tokens for XOAUTH2: fetched with a refresh token (RFC 6749 §6), cached until shortly before they expire."""

from __future__ import annotations

import asyncio
import json

import httpx
from pydantic import SecretStr

from postroad.clock import Clock
from postroad.fetch import BoundedClient, FetchError, HttpAnswer, fetch
from postroad.settings import OAuthSettings
from postroad.smtp.tls import client_context

EARLY_MS = 60_000
"""Safety margin before the expiry of a token, because opening a session takes time."""
DEFAULT_LIFE_MS = 300_000
MAX_LIFE_S = 10**9
MAX_ANSWER_BYTES = 65_536


class TokenError(Exception):
    """No token could be obtained. The message contains no secret."""


class TokenSource:
    """The access token of one mailbox. Concurrent callers share one request."""

    def __init__(self, settings: OAuthSettings, clock: Clock, *, timeout_ms: int = 10_000) -> None:
        self._settings = settings
        self._clock = clock
        self._timeout_ms = timeout_ms
        self._lock = asyncio.Lock()
        self._token: SecretStr | None = None
        self._expires_ms = 0

    async def token(self) -> SecretStr:
        """Return a token that does not expire soon. Raises TokenError."""
        async with self._lock:
            if self._token is None or self._clock.now_ms() >= self._expires_ms:
                self._token, life_ms = await self._fetch()
                self._expires_ms = self._clock.now_ms() + max(life_ms - EARLY_MS, life_ms // 2)
            return self._token

    def refused(self, token: SecretStr) -> None:
        """Discard a token that the server rejected, unless it was already replaced."""
        if self._token is token:
            self._token = None

    async def _fetch(self) -> tuple[SecretStr, int]:
        settings = self._settings
        form = {
            "grant_type": "refresh_token",
            "client_id": settings.client_id,
            "refresh_token": settings.refresh_token.get_secret_value(),
        }
        if settings.client_secret is not None:
            form["client_secret"] = settings.client_secret.get_secret_value()
        if settings.scope is not None:
            form["scope"] = settings.scope
        try:
            async with BoundedClient(verify=client_context(settings.ca_file)) as client:
                response = await fetch(
                    client,
                    settings.token_url,
                    within_s=self._timeout_ms / 1000,
                    max_bytes=MAX_ANSWER_BYTES,
                    method="POST",
                    data=form,
                )
        except (FetchError, OSError) as error:
            raise TokenError(f"{settings.token_url} gives no token: {error}") from None
        return self._parse(response)

    def _parse(self, response: HttpAnswer) -> tuple[SecretStr, int]:
        url = self._settings.token_url
        try:
            answer = json.loads(response.body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise TokenError(f"{url} answers {response.status} without a JSON object")
        token, life_s = answer.get("access_token"), answer.get("expires_in")
        if response.status != httpx.codes.OK or not isinstance(token, str) or not token.isascii():
            # RFC 6749 §5.2: one word, such as invalid_grant. The rest is not shown: it could repeat our secrets.
            word = str(answer.get("error", "no token"))[:40]
            raise TokenError(f"{url} answers {response.status}: {word}")
        life_ms = int(life_s) * 1000 if isinstance(life_s, int | float) and 0 < life_s < MAX_LIFE_S else DEFAULT_LIFE_MS
        return SecretStr(token), life_ms
