"""An OpenID Connect provider on a real socket, which can be made to misbehave."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from postroad.clock import SystemClock
from postroad.web.connections import ConnectionLimits, WebConnectionLimiter
from postroad.web.serve import serving

CLIENT_ID = "postroad"
CLIENT_SECRET = "the client's secret"


@dataclass(kw_only=True)
class Provider:
    """The provider. Attributes change what it does.

    Attributes:
        claims: Claims of the ID token, added to the ones that it must have.
        key: The key that signs.
        published: The key that it publishes.
        algorithm: Algorithm of the signature.
        token_status: Status of the token response.
        issuer: The issuer that it names. Empty: its URL.
    """

    claims: dict[str, Any] = field(default_factory=lambda: {"email": "ada@example.com", "email_verified": True})
    key: RSAKey | OctKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "1"}))
    published: RSAKey | None = None
    algorithm: str = "RS256"
    token_status: int = 200
    issuer: str = ""
    url: str = ""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/.well-known/openid-configuration")
        async def discovery() -> Any:
            return {
                "issuer": self.issuer or self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
            }

        @app.get("/authorize")
        async def authorize(request: Request) -> Response:
            asked = dict(request.query_params)
            assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT_ID)
            assert asked["code_challenge_method"] == "S256"
            code = f"code-{len(self.codes)}"
            self.codes[code] = asked
            return RedirectResponse(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}")

        @app.post("/token")
        async def token(request: Request) -> Response:
            return self._token(request.headers["authorization"], parse_qs((await request.body()).decode()))

        @app.get("/keys")
        async def keys() -> Any:
            published = self.published or self.key
            return {"keys": [published.as_dict(private=False)] if isinstance(published, RSAKey) else []}

        return app

    def _token(self, authorization: str, form: dict[str, list[str]]) -> Response:
        assert base64.b64decode(authorization.split()[1]).decode() == f"{CLIENT_ID}:{quote_plus(CLIENT_SECRET)}"
        asked = self.codes.pop(form["code"][0], None)
        if asked is None or self.token_status != 200:
            return JSONResponse({"error": "invalid_grant"}, self.token_status if asked else 400)
        challenge = base64.urlsafe_b64encode(sha256(form["code_verifier"][0].encode()).digest()).decode().rstrip("=")
        assert challenge == asked["code_challenge"]
        assert form["redirect_uri"] == [asked["redirect_uri"]]
        now = SystemClock().now_ms() // 1000
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "sub": "1",
            "iat": now,
            "exp": now + 60,
            "nonce": asked["nonce"],
            **self.claims,
        }
        algorithms = [self.algorithm]
        signed = jwt.encode({"alg": self.algorithm, "kid": "1"}, claims, self.key, algorithms=algorithms)
        return JSONResponse({"access_token": "x", "token_type": "Bearer", "id_token": signed})


@asynccontextmanager
async def a_provider() -> AsyncIterator[Provider]:
    provider = Provider()
    limiter = WebConnectionLimiter(ConnectionLimits())
    async with serving(provider.app(), "127.0.0.1", 0, limiter) as port:
        provider.url = f"http://127.0.0.1:{port}"
        yield provider
