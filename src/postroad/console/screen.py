"""Screens: pages with their routes, each with the role that it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from fastapi import Response

from postroad.settings import AccessRole

Endpoint = Callable[..., Awaitable[Response]]

PUBLIC: Final = None
"""The role of a route that needs no session: sign-in, style sheet, health."""


class NavSection(StrEnum):
    """Groups of the navigation, in its order."""

    MAIL = "Mail"
    DELIVERY = "Delivery"
    RECORDS = "Records"


@dataclass(frozen=True, kw_only=True)
class ScreenRoute:
    """A route of a screen. ``role``: who may use it; `PUBLIC`: everyone."""

    path: str
    method: str
    role: AccessRole | None
    endpoint: Endpoint


@dataclass(frozen=True, kw_only=True, eq=False)
class Screen:
    """A screen of the console, or a group of pages without an entry in the navigation.

    Attributes:
        name: Its name in code.
        title: Its name in the navigation.
        path: Where the navigation leads. Paths of its routes begin with it.
        section: Its group in the navigation. None: it is not in the navigation.
        role: Who sees it in the navigation.
    """

    name: str
    title: str
    path: str
    section: NavSection | None = None
    role: AccessRole = AccessRole.VIEW
    routes: list[ScreenRoute] = field(default_factory=list)

    def get(self, path: str, *, role: AccessRole | None) -> Callable[[Endpoint], Endpoint]:
        """Register a page. It changes nothing."""
        return self._route("GET", path, role)

    def post(self, path: str, *, role: AccessRole | None) -> Callable[[Endpoint], Endpoint]:
        """Register an act."""
        return self._route("POST", path, role)

    def _route(self, method: str, path: str, role: AccessRole | None) -> Callable[[Endpoint], Endpoint]:
        def register(endpoint: Endpoint) -> Endpoint:
            self.routes.append(ScreenRoute(path=path, method=method, role=role, endpoint=endpoint))
            return endpoint

        return register


def role_attribute(endpoint: Any) -> AccessRole | None:
    """Return the role that an endpoint was registered with.

    Raises:
        LookupError: It was not registered by a screen.
    """
    try:
        role: AccessRole | None = endpoint.console_role
    except AttributeError:
        raise LookupError("the route declares no role") from None
    return role
