"""Sign-in by an OpenID Connect provider, and responses of a provider that lies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from joserfc.jwk import OctKey, RSAKey
from pydantic import SecretStr

from postroad.console.authorise import session_cookie_name
from postroad.settings import AccessRole, ConsoleSettings, OidcSettings
from tests.console.kit import Console, open_console, set_session
from tests.console.provider import CLIENT_ID, CLIENT_SECRET, Provider, a_provider
from tests.console.test_pages import a_browser, signed_in, watch

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

COOKIE = session_cookie_name(secure=False)


@asynccontextmanager
async def console_with(
    provider: Provider, engine: sa.Engine, redis_url: str, folder: Path, *, role: AccessRole | None = AccessRole.OPERATE
) -> AsyncIterator[Console]:
    """Serve a console with the provider. ``role``: that of ada; None: she has none."""
    settings = ConsoleSettings(
        port=0,
        oidc=OidcSettings(issuer=provider.url, client_id=CLIENT_ID, client_secret=SecretStr(CLIENT_SECRET)),
        roles={"ada@example.com": role} if role is not None else {},
    )
    async with open_console(engine, redis_url, folder, settings) as console:
        yield console


async def begin(http: httpx.AsyncClient, target: str = "/audit") -> httpx.Response:
    """Go to the provider and return its redirect back to the console."""
    asked = await http.get("/sign-in/oidc", params={"next": target})
    assert asked.status_code == 303, asked.text
    async with httpx.AsyncClient() as browser:
        return await browser.get(asked.headers["location"])


async def finish(http: httpx.AsyncClient) -> httpx.Response:
    return await http.get((await begin(http)).headers["location"])


async def test_a_user_signs_in_by_the_provider(engine: sa.Engine, redis_url: str, tmp_path: Path) -> None:
    async with a_provider() as provider, console_with(provider, engine, redis_url, tmp_path) as console:
        http = await console.client(None)
        assert "/sign-in/oidc?next=%2Faudit" in (await http.get("/sign-in?next=/audit")).text
        reply = await finish(http)
        assert reply.status_code == 200
        assert 'content="0; url=/audit"' in reply.text
        cookies = ",".join(reply.headers.get_list("set-cookie")).lower()
        assert "samesite=strict" in cookies
        assert (await http.get("/audit")).status_code == 200
        assert (await http.get("/access")).status_code == 403
        (record,) = console.audit()
        assert (record.actor, record.action, record.note) == ("ada@example.com", "session.begin", "oidc")


async def test_a_session_has_the_role_of_the_settings_now(engine: sa.Engine, redis_url: str, tmp_path: Path) -> None:
    async with a_provider() as provider:
        async with console_with(provider, engine, redis_url, tmp_path) as console:
            http = await console.client(None)
            await finish(http)
            assert (await http.get("/audit")).status_code == 200
            token = http.cookies[COOKIE]
        for role, statuses in ((AccessRole.VIEW, (200, 403)), (None, (303, 303)), (AccessRole.OPERATE, (200, 200))):
            async with console_with(provider, engine, redis_url, tmp_path, role=role) as console:
                http = await console.client(None)
                set_session(http, token)
                assert ((await http.get("/")).status_code, (await http.get("/audit")).status_code) == statuses
        async with open_console(engine, redis_url, tmp_path) as console:
            http = await console.client(None)
            set_session(http, token)
            assert (await http.get("/")).status_code == 303, "the provider is not trusted any more"


@pytest.mark.parametrize("target", ["/why?q=zoë€", "/why?q=" + "x" * 5_000, "/why?q=a;b, c"])
async def test_the_page_to_return_to_may_have_any_text(
    engine: sa.Engine, redis_url: str, tmp_path: Path, target: str
) -> None:
    async with a_provider() as provider, console_with(provider, engine, redis_url, tmp_path) as console:
        http = await console.client(None)
        reply = await http.get((await begin(http, target)).headers["location"])
        assert reply.status_code == 200, reply.text
        assert f'content="0; url={target if len(target) < 1_000 else "/"}"' in reply.text


async def test_no_other_host_of_the_domain_begins_a_sign_in(engine: sa.Engine, redis_url: str, tmp_path: Path) -> None:
    """By HTTPS the prefix of the cookie's name keeps a host next to the console from setting it."""
    async with a_provider() as provider:
        settings = ConsoleSettings(
            port=0,
            url="https://console.example.com",
            oidc=OidcSettings(issuer=provider.url, client_id=CLIENT_ID, client_secret=SecretStr(CLIENT_SECRET)),
        )
        async with open_console(engine, redis_url, tmp_path, settings) as console:
            http = await console.client(None, headers={"Host": "console.example.com"})
            cookie = (await http.get("/sign-in/oidc")).headers["set-cookie"]
            assert cookie.startswith("__Host-postroad-oidc=")
            assert "; Path=/; " in cookie
            assert "Secure" in cookie


@pytest.mark.browser
@pytest.mark.timeout(120)
async def test_a_browser_that_returns_from_the_provider_is_signed_in(
    engine: sa.Engine, redis_url: str, tmp_path: Path
) -> None:
    """The cookie is SameSite=Strict, and the provider is another site: localhost, with the console at 127.0.0.1."""
    async with a_provider() as provider:
        provider.url = provider.url.replace("127.0.0.1", "localhost")
        async with (
            console_with(provider, engine, redis_url, tmp_path) as console,
            a_browser() as browser,
            signed_in(browser, console, None) as context,
        ):
            page = await context.new_page()
            errors = watch(page)
            await page.goto("/audit")
            await page.get_by_role("link", name="Sign in with your organization").click()
            await page.get_by_role("heading", name="Audit log").wait_for()
            assert page.url == f"{console.url}/audit"
            assert errors == []


def _other_nonce(provider: Provider) -> None:
    provider.claims["nonce"] = "another"


def _other_audience(provider: Provider) -> None:
    provider.claims["aud"] = "another client"


def _other_issuer(provider: Provider) -> None:
    provider.claims["iss"] = "https://evil.example"


def _expired(provider: Provider) -> None:
    provider.claims["exp"] = 1_000_000_000


def _unverified(provider: Provider) -> None:
    provider.claims["email_verified"] = False


def _no_email(provider: Provider) -> None:
    provider.claims.pop("email")


def _number_as_email(provider: Provider) -> None:
    provider.claims["email"] = 7


def _unknown_user(provider: Provider) -> None:
    provider.claims["email"] = "grace@example.com"


def _other_key(provider: Provider) -> None:
    provider.published = RSAKey.generate_key(2048, {"kid": "1"})


def _symmetric(provider: Provider) -> None:
    assert isinstance(provider.key, RSAKey)
    provider.published = provider.key
    provider.key = OctKey.import_key(CLIENT_SECRET.encode() * 2)
    provider.algorithm = "HS256"


def _refused_code(provider: Provider) -> None:
    provider.token_status = 400


LIES: list[Any] = [
    _other_nonce,
    _other_audience,
    _other_issuer,
    _expired,
    _unverified,
    _no_email,
    _number_as_email,
    _unknown_user,
    _other_key,
    _symmetric,
    _refused_code,
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
async def test_a_token_that_is_not_valid_signs_no_one_in(
    engine: sa.Engine, redis_url: str, tmp_path: Path, lie: Any
) -> None:
    async with a_provider() as provider, console_with(provider, engine, redis_url, tmp_path) as console:
        lie(provider)
        http = await console.client(None)
        reply = await finish(http)
        assert reply.status_code == 401, reply.text
        assert COOKIE not in http.cookies
        assert console.audit() == []


async def test_the_response_to_the_sign_in_of_another_browser_is_refused(
    engine: sa.Engine, redis_url: str, tmp_path: Path
) -> None:
    async with a_provider() as provider, console_with(provider, engine, redis_url, tmp_path) as console:
        attacker, victim = await console.client(None), await console.client(None)
        planted = (await begin(attacker)).headers["location"]
        assert (await victim.get(planted)).status_code == 401, "it began no sign-in"
        await begin(victim)
        assert (await victim.get(planted)).status_code == 401, "it began another one"
        assert COOKIE not in victim.cookies
        assert (await attacker.get(planted)).status_code == 200
        assert (await attacker.get(planted)).status_code == 401, "a code works once"


async def test_a_provider_that_does_not_reply_is_an_error_with_a_remedy(
    engine: sa.Engine, redis_url: str, tmp_path: Path
) -> None:
    provider = Provider(url="http://127.0.0.1:1")
    async with console_with(provider, engine, redis_url, tmp_path) as console:
        reply = await (await console.client(None)).get("/sign-in/oidc")
        assert reply.status_code == 503
        assert "the sign-in provider does not reply" in reply.text
        assert CLIENT_SECRET not in reply.text


async def test_another_issuer_in_the_metadata_is_refused(engine: sa.Engine, redis_url: str, tmp_path: Path) -> None:
    async with a_provider() as provider, console_with(provider, engine, redis_url, tmp_path) as console:
        provider.issuer = "https://evil.example"
        reply = await (await console.client(None)).get("/sign-in/oidc")
        assert reply.status_code == 503
        assert "console.oidc.issuer" in reply.text


async def test_without_the_setting_there_is_no_sign_in_by_a_provider(console: Console) -> None:
    http = await console.client(None)
    assert "/sign-in/oidc" not in (await http.get("/sign-in")).text
    assert (await http.get("/sign-in/oidc")).status_code == 409
    assert (await http.get("/sign-in/oidc/callback?code=x&state=y")).status_code == 409
