"""Sign-in by an OpenID Connect provider: the authorization code flow with PKCE, state and nonce.

One random secret in a cookie of the browser is the state of a sign-in. State, nonce and code verifier are derived from
it, so the server stores nothing, and a response is accepted only by the browser that began.
"""

from __future__ import annotations

import hmac
from base64 import b64encode, urlsafe_b64encode
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote_plus

import msgspec
from authlib.common.errors import AuthlibBaseError
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from msgspec import Struct

from postroad.clock import Clock
from postroad.errors import UnavailableError, UsageError
from postroad.fetch import BoundedClient, FetchError, HttpAnswer, fetch
from postroad.settings import OidcSettings

WITHIN_S: Final = 10.0
MAX_BYTES: Final = 262_144
METADATA_MS: Final = 3_600_000
LEEWAY_S: Final = 60
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a key pair. `none` and HMAC are not accepted."""
CALLBACK: Final = "/sign-in/oidc/callback"


class ProviderMetadata(Struct, frozen=True, kw_only=True):
    """What a provider publishes (OpenID Connect Discovery 1.0 §3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


class _TokenResponse(Struct, frozen=True, kw_only=True):
    id_token: str
    access_token: str = ""


class OidcRefusedError(UsageError):
    """The provider's response is not valid, or the user has no access."""


class OidcClient:
    """Signs users in at one provider.

    Args:
        settings: The provider.
        http: Client for requests to it.
        clock: Tells whether tokens have expired.
    """

    def __init__(self, settings: OidcSettings, http: BoundedClient, clock: Clock) -> None:
        self._settings = settings
        self._http = http
        self._clock = clock
        self._metadata: tuple[int, ProviderMetadata] | None = None

    async def authorization_url(self, secret: str, redirect_uri: str) -> str:
        """Return the provider's page at which the user signs in.

        Args:
            secret: The random secret of this sign-in.
            redirect_uri: URL to which the provider returns the user.

        Raises:
            UnavailableError: The provider does not reply as it must.
        """
        metadata = await self._provider()
        url: str = prepare_grant_uri(
            metadata.authorization_endpoint,
            self._settings.client_id,
            "code",
            redirect_uri,
            list(self._settings.scopes),
            _derive(secret, "state"),
            nonce=_derive(secret, "nonce"),
            code_challenge=create_s256_code_challenge(_derive(secret, "verifier")),
            code_challenge_method="S256",
        )
        return url

    def require_begun(self, secret: str, state: str) -> None:
        """Check that a response is that of the sign-in that this browser began.

        Args:
            secret: The secret of the browser's cookie. Empty: it has none.
            state: The state of the response.

        Raises:
            OidcRefusedError: The browser began no sign-in, or another one.
        """
        if not secret:
            raise OidcRefusedError("this browser began no sign-in, or it has expired", remedy="Sign in again.")
        if not hmac.compare_digest(state.encode(), _derive(secret, "state").encode()):
            raise OidcRefusedError("this is the response to another sign-in", remedy="Sign in again.")

    async def finish(self, secret: str, redirect_uri: str, *, code: str, state: str) -> str:
        """Return the name of the user whom the provider authenticated.

        Args:
            secret: The secret with which the sign-in began.
            redirect_uri: The same URL as at its begin.
            code: The code of the response.
            state: The state of the response.

        Raises:
            OidcRefusedError: The response is not that of this sign-in, or its token is not valid.
            UnavailableError: The provider does not reply as it must.
        """
        self.require_begun(secret, state)
        metadata = await self._provider()
        reply = await self._ask(
            metadata.token_endpoint,
            method="POST",
            headers={"Authorization": self._basic()},
            data={
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": redirect_uri,
                "code_verifier": _derive(secret, "verifier"),
            },
        )
        if reply.status != 200:
            raise OidcRefusedError(f"the provider refused the code with status {reply.status}", remedy="Sign in again.")
        tokens = _decode(reply, _TokenResponse, metadata.token_endpoint)
        keys = _decode(await self._ask(metadata.jwks_uri), dict[str, Any], metadata.jwks_uri)
        claims = self._claims(tokens, keys, metadata, _derive(secret, "nonce"))
        name = claims.get(self._settings.claim)
        if not isinstance(name, str) or not name or (self._settings.claim == "email" and not _is_verified(claims)):
            raise OidcRefusedError(f"the provider names no verified {self._settings.claim} of the user")
        return name

    def _basic(self) -> str:
        """Return the client's credentials. RFC 6749 §2.3.1: both are encoded as in a form first."""
        secret = self._settings.client_secret.get_secret_value()
        pair = f"{quote_plus(self._settings.client_id)}:{quote_plus(secret)}"
        return f"Basic {b64encode(pair.encode()).decode()}"

    def _claims(
        self, tokens: _TokenResponse, keys: dict[str, Any], metadata: ProviderMetadata, nonce: str
    ) -> dict[str, Any]:
        client_id = self._settings.client_id
        try:
            token = jwt.decode(tokens.id_token, KeySet.import_key_set(keys), algorithms=ALGORITHMS)  # type: ignore[arg-type]
            claims = CodeIDToken(
                token.claims,
                token.header,
                {"iss": {"essential": True, "value": metadata.issuer}, "aud": {"essential": True, "value": client_id}},
                {"nonce": nonce, "client_id": client_id, "access_token": tokens.access_token},
            )
            claims.validate(now=self._clock.now_ms() // 1000, leeway=LEEWAY_S)
        except (JoseError, AuthlibBaseError, ValueError, KeyError, TypeError) as error:
            raise OidcRefusedError(
                f"the provider's token is not valid: {type(error).__name__}", remedy="Sign in again."
            ) from None
        return dict(claims)

    async def _provider(self) -> ProviderMetadata:
        now_ms = self._clock.now_ms()
        if self._metadata is None or now_ms - self._metadata[0] > METADATA_MS:
            url = f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration"
            metadata = _decode(await self._ask(url), ProviderMetadata, url)
            if metadata.issuer.rstrip("/") != self._settings.issuer.rstrip("/"):
                raise UnavailableError(
                    "the provider names another issuer", where=url, remedy="Correct console.oidc.issuer."
                )
            self._metadata = (now_ms, metadata)
        return self._metadata[1]

    async def _ask(self, url: str, **options: Any) -> HttpAnswer:
        try:
            return await fetch(self._http, url, within_s=WITHIN_S, max_bytes=MAX_BYTES, **options)
        except FetchError as error:
            raise UnavailableError(
                f"the sign-in provider does not reply: {error}", where=url, remedy="Try again, or use another sign-in."
            ) from None


def _derive(secret: str, purpose: str) -> str:
    digest = hmac.digest(secret.encode(), purpose.encode(), sha256)
    return urlsafe_b64encode(digest).decode().rstrip("=")


def _decode(reply: HttpAnswer, kind: Any, url: str) -> Any:
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise UnavailableError(
            f"the sign-in provider's response of status {reply.status} cannot be read", where=url
        ) from None


def _is_verified(claims: dict[str, Any]) -> bool:
    """Return whether the address is the user's. Providers that let users enter any address say false."""
    return claims.get("email_verified", True) in (True, "true")
