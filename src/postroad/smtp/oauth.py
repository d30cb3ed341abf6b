"""Access tokens for XOAUTH2: fetched with a refresh token (RFC 6749 §6), kept until shortly before they expire."""

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
"""How long before its end a token is not used any more: a session takes a while to open."""
DEFAULT_LIFE_MS = 300_000
MAX_LIFE_S = 10**9
MAX_ANSWER_BYTES = 65_536


class TokenError(Exception):
    """No token could be had. Says why, and no secret."""


class TokenSource:
    """The tokens of one mailbox. All who want one meanwhile wait for the same request."""

    def __init__(self, settings: OAuthSettings, clock: Clock, *, timeout_ms: int = 10_000) -> None:
        self._settings = settings
        self._clock = clock
        self._timeout_ms = timeout_ms
        self._lock = asyncio.Lock()
        self._token: SecretStr | None = None
        self._good_until_ms = 0

    async def token(self) -> SecretStr:
        """Return a token that is good for a while yet. Raises TokenError."""
        async with self._lock:
            if self._token is None or self._clock.now_ms() >= self._good_until_ms:
                self._token, life_ms = await self._fetch()
                self._good_until_ms = self._clock.now_ms() + max(life_ms - EARLY_MS, life_ms // 2)
            return self._token

    def refused(self, token: SecretStr) -> None:
        """The server did not take it: fetch another next time, unless somebody has since."""
        if self._token is token:
            self._token = None

    async def _fetch(self) -> tuple[SecretStr, int]:
        said = self._settings
        form = {
            "grant_type": "refresh_token",
            "client_id": said.client_id,
            "refresh_token": said.refresh_token.get_secret_value(),
        }
        if said.client_secret is not None:
            form["client_secret"] = said.client_secret.get_secret_value()
        if said.scope is not None:
            form["scope"] = said.scope
        try:
            async with BoundedClient(verify=client_context(said.ca_file)) as client:
                answer = await fetch(
                    client,
                    said.token_url,
                    within_s=self._timeout_ms / 1000,
                    max_bytes=MAX_ANSWER_BYTES,
                    method="POST",
                    data=form,
                )
        except (FetchError, OSError) as error:
            raise TokenError(f"{said.token_url} gives no token: {error}") from None
        return self._read(answer)

    def _read(self, response: HttpAnswer) -> tuple[SecretStr, int]:
        where = self._settings.token_url
        try:
            answer = json.loads(response.body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise TokenError(f"{where} answers {response.status}, and no JSON object")
        token, life_s = answer.get("access_token"), answer.get("expires_in")
        if response.status != httpx.codes.OK or not isinstance(token, str) or not token.isascii():
            # RFC 6749 §5.2: one word, such as invalid_grant. Nothing else of it: it could repeat what we sent.
            word = str(answer.get("error", "no token"))[:40]
            raise TokenError(f"{where} answers {response.status}: {word}")
        life_ms = int(life_s) * 1000 if isinstance(life_s, int | float) and 0 < life_s < MAX_LIFE_S else DEFAULT_LIFE_MS
        return SecretStr(token), life_ms
