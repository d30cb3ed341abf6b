"""Every page of the console with an example of each path parameter, and rows for the pages to show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from postroad.clock import SystemClock
from postroad.console.registry import SCREENS
from postroad.console.screen import PUBLIC, ScreenRoute
from postroad.settings import AccessRole
from postroad.store.audit import Actor, record_act
from postroad.store.console_access import SignIn, begin_session, save_user
from postroad.store.engine import write

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}\x1b[2J\u202e"
"""What a stranger may write into a field, a subject or a reply."""

EXAMPLES = {"session_id": "1", "name": "ada@example.com"}
"""A value of each path parameter, of rows that `fill` makes."""

NOT_PAGES = {"/sign-in/oidc", "/sign-in/oidc/callback", "/now/live"}
"""Redirects, and parts of pages that a script fetches."""

PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True, kw_only=True)
class RegisteredRoute:
    """A route of a screen, and its path with the examples."""

    screen: str
    route: ScreenRoute

    @property
    def path(self) -> str:
        return PARAMETER.sub(lambda found: EXAMPLES[found[1]], self.route.path)

    def __str__(self) -> str:
        return f"{self.route.method} {self.route.path}"


def routes() -> Iterator[RegisteredRoute]:
    """Yield every route of every screen."""
    for screen in SCREENS:
        for route in screen.routes:
            yield RegisteredRoute(screen=screen.name, route=route)


def closed_routes() -> list[RegisteredRoute]:
    """Return the routes that need a role."""
    return [route for route in routes() if route.route.role is not PUBLIC]


def shown_pages() -> list[RegisteredRoute]:
    """Return the pages that a browser opens."""
    return [route for route in routes() if route.route.method == "GET" and route.route.path not in NOT_PAGES]


def fill(engine: sa.Engine) -> None:
    """Make rows for the pages, some of them with hostile texts."""
    now = SystemClock().now()
    with write(engine) as connection:
        save_user(connection, "ada@example.com", AccessRole.OPERATE, "$argon2id$none", now)
        save_user(connection, HOSTILE[:100], AccessRole.VIEW, "$argon2id$none", now)
        for user in ("ada@example.com", HOSTILE):
            sign_in = SignIn(
                user=user,
                role=AccessRole.SEND,
                method="password",
                origin="192.0.2.7",
                expires_at=now + timedelta(hours=3),
            )
            begin_session(connection, sign_in, now)
        for number in range(60):
            actor = Actor(name="ada@example.com" if number % 7 else HOSTILE, origin="192.0.2.7")
            target = "spring" if number % 5 else HOSTILE
            at = now - timedelta(minutes=7 * number)
            record_act(connection, actor, "campaign.pause", target, 1_200 * number, at=at, note=HOSTILE[:60])
