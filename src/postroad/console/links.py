"""Makes one-time sign-in links."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa

from postroad.settings import AccessRole, ConsoleSettings
from postroad.store.audit import Actor, record_act
from postroad.store.console_access import make_link
from postroad.store.engine import write


@dataclass(frozen=True, kw_only=True)
class MadeLink:
    """A sign-in link. ``url`` is secret until it is used."""

    url: str = field(repr=False)
    expires_at: datetime


def make_sign_in_link(
    engine: sa.Engine, settings: ConsoleSettings, user: str, role: AccessRole, *, actor: Actor, now: datetime
) -> MadeLink:
    """Make a link that signs a user in once.

    Args:
        engine: The database.
        settings: Where the console is, and how long a link can be used.
        user: Name of the user.
        role: Role of the session.
        actor: Who makes the link.
        now: The time.

    Returns:
        The link.
    """
    expires_at = now + timedelta(milliseconds=settings.link_ms)
    with write(engine) as connection:
        token = make_link(connection, user, role, now=now, expires_at=expires_at)
        record_act(connection, actor, "link.make", user, None, at=now, note=f"role {role}")
    return MadeLink(url=f"{console_url(settings)}/sign-in/link?token={token}", expires_at=expires_at)


def console_url(settings: ConsoleSettings) -> str:
    """Return the URL at which users reach the console."""
    if settings.url is not None:
        return settings.url
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"
