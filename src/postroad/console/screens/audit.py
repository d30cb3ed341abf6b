"""The audit log: who did what, when, from where, and how many it touched."""

from __future__ import annotations

from fastapi import Response

from postroad.console.authorise import CurrentVisit
from postroad.console.screen import NavSection, Screen
from postroad.errors import UsageError
from postroad.settings import AccessRole
from postroad.store.audit import AuditFilter, audit_records

screen = Screen(name="audit", title="Audit log", path="/audit", section=NavSection.RECORDS, role=AccessRole.OPERATE)

ROWS = 50


@screen.get("/audit", role=AccessRole.OPERATE)
async def audit(visit: CurrentVisit, after: str | None = None, actor: str = "", action: str = "") -> Response:
    """List the records, the newest first."""
    only = AuditFilter(actor=actor.strip() or None, action=action.strip() or None)
    rows = await visit.read(audit_records, ROWS + 1, before=_id(after), only=only)
    shown = rows[:ROWS]
    return visit.page(
        "audit.html",
        rows=shown,
        next=str(shown[-1].id) if len(rows) > ROWS else None,
        first=after is None,
        actor=actor,
        action=action,
    )


def _id(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isascii() or not cursor.isdecimal() or len(cursor) > 18:
        raise UsageError("the page of this list does not exist", remedy="Open the list from its first page.")
    return int(cursor)
