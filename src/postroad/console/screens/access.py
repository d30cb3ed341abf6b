"""Who has access: users with passwords, sessions and keys of the API, which an owner may end."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from postroad.console.authorise import CurrentVisit
from postroad.console.confirm import Confirmation, Extent
from postroad.console.screen import NavSection, Screen
from postroad.console.visit import Visit
from postroad.errors import StateError, UsageError
from postroad.read_model.page import decode_cursor, to_page
from postroad.settings import AccessRole
from postroad.store.api_key import ApiKey, api_keys, revoke_key
from postroad.store.audit import record_act
from postroad.store.console_access import end_session, end_sessions_of, find_user, remove_user, sessions, users
from postroad.store.engine import write

screen = Screen(name="access", title="Access", path="/access", section=NavSection.RECORDS, role=AccessRole.OWN)

ROWS = 50
MAX_CURSOR = 2_000
"""A name has at most 200 characters, of which each may be six in JSON."""

Cursor = Annotated[str | None, Query(max_length=MAX_CURSOR)]


@screen.get("/access", role=AccessRole.OWN)
async def access(
    visit: CurrentVisit, after: Cursor = None, users_after: Cursor = None, keys_after: Cursor = None
) -> Response:
    """List users, keys of the API and sessions, each list in pages of its own."""
    before = None if after is None else _session_id(after)
    rows = await visit.read(sessions, visit.parts.now(), ROWS + 1, before=before)
    shown = rows[:ROWS]
    known = await visit.read(users, after=decode_cursor(users_after, str, ""), limit=ROWS + 1)
    keys = await visit.read(api_keys, after=decode_cursor(keys_after, str, ""), limit=ROWS + 1)
    return visit.page(
        "access.html",
        users=to_page(known, ROWS, lambda user: user.name),
        first_users=users_after is None,
        keys=to_page(keys, ROWS, lambda key: key.name),
        first_keys=keys_after is None,
        now=visit.parts.now(),
        sessions=shown,
        next=str(shown[-1].id) if len(rows) > ROWS else None,
        first=after is None,
        console=visit.parts.console,
    )


@screen.get("/access/sessions/{session_id}/end", role=AccessRole.OWN)
async def ask_end(visit: CurrentVisit, session_id: str) -> Response:
    """Ask before a session is ended."""
    return visit.confirm(
        Confirmation(
            title="End this session?",
            button="End the session",
            action=f"/access/sessions/{_session_id(session_id)}/end",
            back="/access",
            extents=[Extent(count=1, label="session ends")],
            effects=["Its user signs in again to continue. Nothing else changes."],
        )
    )


@screen.post("/access/sessions/{session_id}/end", role=AccessRole.OWN)
async def end(visit: CurrentVisit, session_id: str) -> Response:
    """End a session."""

    def ended() -> str | None:
        with write(visit.parts.engine) as connection:
            user = end_session(connection, _session_id(session_id))
            if user is not None:
                record_act(connection, visit.actor, "session.end", user, 1, at=visit.parts.now())
            return user

    user = await visit.run(ended)
    if user is None:
        raise StateError("this session has ended already", remedy="The list of sessions shows those that continue.")
    return visit.redirect("/access", f"A session of {user} is ended.")


@screen.get("/access/users/{name}/remove", role=AccessRole.OWN)
async def ask_remove(visit: CurrentVisit, name: str) -> Response:
    """Ask before a user is removed."""
    user = await visit.read(find_user, name)
    if user is None:
        raise StateError(f"there is no user named {name[:200]!r}")
    return visit.confirm(
        Confirmation(
            title=f"Remove the user {name}?",
            button="Remove the user",
            action=visit.url(),
            back="/access",
            extents=[Extent(count=1, label="user is removed")],
            effects=["The user's sessions end. Records of the user in the audit log are kept."],
            dangerous=True,
        )
    )


@screen.post("/access/users/{name}/remove", role=AccessRole.OWN)
async def remove(visit: CurrentVisit, name: str) -> Response:
    """Remove a user and end the user's sessions."""

    def removed() -> bool:
        with write(visit.parts.engine) as connection:
            ended = end_sessions_of(connection, name)
            found = remove_user(connection, name)
            if found:
                note = f"{ended} sessions ended"
                record_act(connection, visit.actor, "user.remove", name, 1, at=visit.parts.now(), note=note)
            return found

    if not await visit.run(removed):
        raise StateError(f"there is no user named {name[:200]!r}")
    return visit.redirect("/access", f"The user {name} is removed.")


async def _key(visit: Visit, name: str) -> ApiKey:
    """Return a key that is not revoked. Raises StateError if no key has this name."""
    found = next((key for key in await visit.read(api_keys) if key.name == name and key.revoked_at is None), None)
    if found is None:
        raise StateError(f"there is no API key named {name[:200]!r} that could be revoked")
    return found


@screen.get("/access/keys/{key}/revoke", role=AccessRole.OWN)
async def ask_revoke(visit: CurrentVisit, key: str) -> Response:
    """Ask before a key of the API is revoked."""
    found = await _key(visit, key)
    used = f"It was last used {visit.parts.templates.age(found.last_used_at)}." if found.last_used_at else ""
    return visit.confirm(
        Confirmation(
            title=f"Revoke the API key {found.name}?",
            button="Revoke the key",
            action=visit.url(),
            back="/access",
            extents=[Extent(count=1, label="key is revoked")],
            effects=[f"The next request with it is refused. {used}", "The audit log keeps its name."],
            dangerous=True,
        )
    )


@screen.post("/access/keys/{key}/revoke", role=AccessRole.OWN)
async def revoke(visit: CurrentVisit, key: str) -> Response:
    """Revoke a key of the API."""
    found = await _key(visit, key)

    def revoked() -> None:
        with write(visit.parts.engine) as connection:
            revoke_key(connection, found.name, visit.parts.now())
            record_act(connection, visit.actor, "api-key.revoke", found.name, 1, at=visit.parts.now())

    await visit.run(revoked)
    return visit.redirect("/access", f"The API key {found.name} is revoked.")


def _session_id(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise UsageError("there is no session with this id", remedy="Open the list of sessions.")
    return int(text)
