"""Address, password and CSRF token by which Postroad's clients reach a Prefect server."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from postroad.fetch import BoundedClient
from postroad.secret_file import read_or_make_secret, read_secret

HOST: Final = "127.0.0.1"
MAX_ANSWER_BYTES: Final = 16 << 20
LOOPBACK: Final = (HOST, "localhost")
DEFAULT_PORT: Final = 4200
PASSWORD_FILE: Final = "prefect.password"  # noqa: S105
URL_FILE: Final = "prefect.url"
USER: Final = "postroad"
CHANGES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class PrefectAuth(httpx.Auth):
    """Adds Basic authentication, and a CSRF token to each request that changes data."""

    requires_response_body = True

    def __init__(self, password: str | None) -> None:
        self._authorization = f"Basic {base64.b64encode(password.encode()).decode()}" if password else None
        self._csrf: dict[str, str] = {}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Yield the request, after fetching a token if needed, and again if the token had expired."""
        self._authorize(request)
        if request.method not in CHANGES:
            yield request
            return
        if not self._csrf:
            yield from self._fetch_token(request)
        request.headers.update(self._csrf)
        response = yield request
        if response.status_code == httpx.codes.FORBIDDEN and "CSRF" in response.text:
            yield from self._fetch_token(request)
            request.headers.update(self._csrf)
            yield request

    def _authorize(self, request: httpx.Request) -> None:
        if self._authorization is not None:
            request.headers["Authorization"] = self._authorization

    def _fetch_token(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        # Each token has its own client identifier: a second token for the same client would invalidate the first,
        # which requests in flight may use.
        client = str(uuid4())
        prefix = request.url.path.partition("/api/")[0]
        url = request.url.copy_with(path=f"{prefix}/api/csrf-token", query=f"client={client}".encode())
        asked = httpx.Request("GET", url)
        self._authorize(asked)
        response = yield asked
        # A server without this protection replies 422, and then needs no token.
        if response.is_success:
            self._csrf = {"Prefect-Csrf-Token": response.json()["token"], "Prefect-Csrf-Client": client}


@dataclass(frozen=True, kw_only=True)
class PrefectAccess:
    """The address and password of a Prefect server.

    Attributes:
        url: The address of its UI, without `/api`.
        password: In the form `user:secret`. None: the server has no password.
    """

    url: str
    password: str | None = field(default=None, repr=False)

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    def http(self, timeout_s: float) -> BoundedClient:
        """Return a client of the API, whose paths are relative to `/api`.

        Args:
            timeout_s: Seconds for each complete response.
        """
        return BoundedClient(
            base_url=self.api_url,
            auth=PrefectAuth(self.password),
            within_s=timeout_s,
            max_bytes=MAX_ANSWER_BYTES,
            trust_env=False,
        )


def password_of(state: Path) -> str:
    """Return the password of the Prefect server of a state folder, which the first call generates.

    It has the form `user:secret` of Basic authentication (RFC 7617), so any HTTP client can send it.
    """
    return read_or_make_secret(state / PASSWORD_FILE, prefix=f"{USER}:")


def publish_url(state: Path, url: str) -> None:
    """Record where the Prefect server of a state folder listens."""
    draft = state / f"{URL_FILE}.draft"
    draft.write_text(url, encoding="ascii")
    draft.replace(state / URL_FILE)


def forget_url(state: Path) -> None:
    """Remove the record of `publish_url`: another user may listen on that port now, and must not get the password."""
    (state / URL_FILE).unlink(missing_ok=True)


def find_prefect(state: Path) -> PrefectAccess:
    """Return the Prefect server that commands on this machine use.

    Its address is PREFECT_API_URL, else that of the `postroad up` on this state folder, else the default port. Its
    password is PREFECT_API_AUTH_STRING, else that of the state folder, which is sent to that folder's server only.
    """
    running = _published_url(state)
    named = os.environ.get("PREFECT_API_URL")
    url = named.rstrip("/").removesuffix("/api") if named else running or f"http://{HOST}:{DEFAULT_PORT}"
    password = os.environ.get("PREFECT_API_AUTH_STRING")
    if password is None and running is not None and _same_server(url, running):
        password = read_secret(state / PASSWORD_FILE)
    return PrefectAccess(url=url, password=password)


def _published_url(state: Path) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return (state / URL_FILE).read_text(encoding="ascii").strip()
    return None


def _same_server(one: str, other: str) -> bool:
    first, second = urlsplit(one), urlsplit(other)
    if first.hostname in LOOPBACK and second.hostname in LOOPBACK:
        return (first.scheme, first.port) == (second.scheme, second.port)
    return one == other
