"""People: the consents of a person and of an audience, and the members who joined by an import."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa
from fastapi import Query, Response

from postroad.app.consents import MAX_SOURCE_CHARACTERS, HeldBySuppression, holding_suppressions
from postroad.console.authorise import CurrentVisit
from postroad.console.screens.people import MAX_ADDRESS_CHARACTERS, import_number, screen
from postroad.console.visit import Visit
from postroad.errors import DataError
from postroad.mail.address import normalise_address
from postroad.read_model import consents
from postroad.settings import AccessRole

AddressText = Annotated[str, Query(max_length=MAX_ADDRESS_CHARACTERS)]
SourceText = Annotated[str | None, Query(max_length=MAX_SOURCE_CHARACTERS)]


@screen.get("/people/person", role=AccessRole.VIEW)
async def person(visit: CurrentVisit, address: AddressText, after: str | None = None) -> Response:
    """Show what proves that a person asked for mail, and the suppressions that hold it nevertheless."""
    problem, found, suppressions = "", None, []
    try:
        key = normalise_address(address)
    except DataError as error:
        problem = f"It is not an address: {error.message}"
    else:
        found = await visit.read(consents.person_consents, key, after=after)
        suppressions = await visit.read(_holding, visit, key)
        address, problem = key, "" if found is not None else "No recipient has this address."
    return visit.page(
        "people_person.html",
        address=address,
        problem=problem,
        person=found,
        suppressions=suppressions,
        first=after is None,
        status=404 if found is None else 200,
    )


def _holding(connection: sa.Connection, visit: Visit, address: str) -> list[HeldBySuppression]:
    return holding_suppressions(visit.parts.context, connection, address)


@screen.get("/people/audiences/{name}/consents", role=AccessRole.VIEW)
async def consents_to(visit: CurrentVisit, name: str, source: SourceText = None, after: str | None = None) -> Response:
    """Show the recorded consents to an audience."""
    page = await visit.read(consents.audience_consents, name, source, after=after)
    return visit.page("people_consents.html", name=name, source=source, page=page, first=after is None)


@screen.get("/people/audiences/{name}/sources", role=AccessRole.VIEW)
async def sources_of(visit: CurrentVisit, name: str, after: str | None = None) -> Response:
    """Show all sources of the recorded consents to an audience."""
    sources = await visit.read(consents.consent_sources, name, after=after)
    return visit.page("people_sources.html", name=name, sources=sources, first=after is None)


@screen.get("/people/audiences/{name}/imports/{import_id}/members", role=AccessRole.VIEW)
async def joined_by(visit: CurrentVisit, name: str, import_id: int, after: str | None = None) -> Response:
    """Show the members who joined by an import, with their lines in its file."""
    page = await visit.read(consents.members_of_import, name, import_number(import_id), after=after)
    return visit.page("people_joined.html", name=name, import_id=import_id, page=page, first=after is None)
