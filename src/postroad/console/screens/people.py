"""People: where they are from, what imports refused, and who gets no mail."""

from __future__ import annotations

import sqlalchemy as sa
from fastapi import Response

from postroad.app.suppressions import (
    NewSuppressions,
    add_suppressions,
    lift_suppressions,
    stored_keys,
    suppression_key,
)
from postroad.console.authorise import CurrentVisit
from postroad.console.confirm import Confirmation, Extent, FormField
from postroad.console.page_url import page_url
from postroad.console.screen import NavSection, Screen
from postroad.console.visit import BackText, Visit, local_path, posted_back
from postroad.errors import DataError, StateError, UsageError
from postroad.mail.address_hash import is_hash
from postroad.read_model import people
from postroad.read_model.consents import consent_sources
from postroad.settings import AccessRole
from postroad.store.ledger import UNSENT
from postroad.store.person_history import suppressions_with_keys
from postroad.store.suppression import SuppressionReason
from postroad.store.touch_lookup import MAX_TOUCHES, touches_of_address

screen = Screen(name="people", title="People", path="/people", section=NavSection.RECORDS)

MAX_ADDRESS_CHARACTERS = 320
MAX_BY_CHARACTERS = 100
SUPPRESSIONS = "/people/suppressions"

TONES = {
    SuppressionReason.UNSUBSCRIBE: "info",
    SuppressionReason.HARD_BOUNCE: "end",
    SuppressionReason.SOFT_BOUNCE: "warn",
    SuppressionReason.COMPLAINT: "bad",
    SuppressionReason.MANUAL: "wait",
}


@screen.get("/people", role=AccessRole.VIEW)
async def overview(visit: CurrentVisit, after: str | None = None) -> Response:
    """Show the audiences, and the suppressions by reason."""
    counts = await visit.read(people.suppression_counts)
    return visit.page(
        "people.html",
        audiences=await visit.read(people.audiences, after=after),
        first=after is None,
        suppressions=counts,
        suppression_parts=[
            (
                count.reason.value.replace("_", " "),
                count.suppressions,
                f"/people/suppressions?reason={count.reason.value}",
                TONES[count.reason],
            )
            for count in counts
        ],
    )


@screen.get("/people/audiences/{name}", role=AccessRole.VIEW)
async def audience(visit: CurrentVisit, name: str, after: str | None = None) -> Response:
    """Show the imports, the sources of consents and the members of an audience."""
    imports = await visit.read(people.imports, name, limit=10)
    sources = await visit.read(consent_sources, name, limit=10)
    members = await visit.read(people.audience_members, name, after=after)
    return visit.page(
        "people_audience.html", name=name, imports=imports, sources=sources, members=members, first=after is None
    )


@screen.get("/people/audiences/{name}/imports", role=AccessRole.VIEW)
async def imports_of(visit: CurrentVisit, name: str, after: str | None = None) -> Response:
    """Show all imports into an audience."""
    imports = await visit.read(people.imports, name, after=after)
    return visit.page("people_imports.html", name=name, imports=imports, first=after is None)


@screen.get("/people/audiences/{name}/imports/{import_id}", role=AccessRole.VIEW)
async def refusals(visit: CurrentVisit, name: str, import_id: int, after: str | None = None) -> Response:
    """Show the rows that an import refused."""
    rows = await visit.read(people.import_refusals, name, import_number(import_id), after=after)
    return visit.page("people_refusals.html", name=name, import_id=import_id, rows=rows, first=after is None)


def import_number(import_id: int) -> int:
    """Return the id of an import. Raises UsageError for a number that no import has."""
    if not 0 < import_id < 2**62:
        raise UsageError("there is no import with this id", remedy="Open the list of imports.")
    return import_id


@screen.get("/people/suppressions", role=AccessRole.VIEW)
async def suppressions(
    visit: CurrentVisit, reason: SuppressionReason = SuppressionReason.UNSUBSCRIBE, after: str | None = None
) -> Response:
    """Show the suppressions of one reason, and look up one address."""
    rows = await visit.read(people.suppressions_of_reason, reason, after=after)
    counts = {count.reason: count.suppressions for count in await visit.read(people.suppression_counts)}
    return visit.page(
        "people_suppressions.html",
        rows=rows,
        reason=reason,
        reasons=[(member, counts.get(member, 0)) for member in SuppressionReason],
        first=after is None,
    )


def _waiting_to(connection: sa.Connection, key: str) -> int | None:
    """Return the number of messages that wait for an address. None: the key is not that of one address."""
    if key.startswith("@") or is_hash(key):
        return None
    return len(touches_of_address(connection, key, states=UNSENT, limit=MAX_TOUCHES))


async def _suppressing(visit: Visit, address: str, back: str, *, why: str = "", error: str = "") -> Confirmation:
    waiting = await visit.read(_waiting_to, _key(address))
    href = page_url("why", q=address)
    stopped = (
        [] if waiting is None else [Extent(count=waiting, label="messages to it wait, and are not sent", href=href)]
    )
    hint = "How you know that it wants no mail. It is stored with the suppression."
    return Confirmation(
        title=f"Send no more to {address}?",
        button="Suppress it",
        action="/people/suppressions/add",
        back=back,
        extents=stopped,
        effects=["It gets no mail of any campaign, and of no sender, until a person lifts the suppression."],
        fields=[FormField(name="why", label="Reason", value=why, error=error, hint=hint)],
        hidden={"address": address, "back": back},
    )


@screen.get("/people/suppressions/add", role=AccessRole.OPERATE)
async def ask_suppress(visit: CurrentVisit, address: str, back: BackText = SUPPRESSIONS) -> Response:
    """Show what a suppression of an address, a domain or a hash would touch."""
    return visit.confirm(await _suppressing(visit, address, local_path(back)))


@screen.post("/people/suppressions/add", role=AccessRole.OPERATE)
async def suppress(visit: CurrentVisit) -> Response:
    """Suppress an address, a domain or a hash everywhere."""
    form = await visit.form()
    address, why = form.text("address", max_characters=MAX_ADDRESS_CHARACTERS), form.text("why", max_characters=200)
    back = posted_back(form, SUPPRESSIONS)
    if "why" in form.errors:
        page = await _suppressing(visit, address, back, why=why, error=form.errors["why"])
        return visit.confirm(page, status=422)
    source = f"{visit.user.user[:MAX_BY_CHARACTERS]} in the console: {why}"
    given = NewSuppressions(keys=[_key(address)], reason=SuppressionReason.MANUAL, source=source)
    async with visit.act("suppression.add", address, note=why) as act:
        added = await visit.run(add_suppressions, visit.parts.context, given)
        act.count = added.new
    return visit.redirect(back, f"{address} gets no mail." if added.new else f"{address} was suppressed already.")


@screen.get("/people/suppressions/lift", role=AccessRole.OPERATE)
async def ask_lift(visit: CurrentVisit, address: str, back: BackText = SUPPRESSIONS) -> Response:
    """Show what lifting the suppressions of an address would touch."""
    keys = stored_keys(visit.parts.context, [_key(address)])
    found, _ = await visit.read(suppressions_with_keys, keys)
    if not found:
        raise StateError(f"{address[:MAX_ADDRESS_CHARACTERS]} is not suppressed", remedy="Check its spelling.")
    return visit.confirm(_lifting(address, len(found), local_path(back)))


@screen.post("/people/suppressions/lift", role=AccessRole.OPERATE)
async def lift(visit: CurrentVisit) -> Response:
    """Lift the suppressions of an address."""
    form = await visit.form()
    address = form.text("address", max_characters=MAX_ADDRESS_CHARACTERS)
    why = form.text("why", max_characters=200)
    back = posted_back(form, SUPPRESSIONS)
    if form.errors:
        found, _ = await visit.read(suppressions_with_keys, stored_keys(visit.parts.context, [_key(address)]))
        return visit.confirm(_lifting(address, len(found), back, why=why, error=form.errors.get("why", "")), status=422)
    async with visit.act("suppression.lift", address, note=why) as act:
        by, context = visit.user.user[:MAX_BY_CHARACTERS], visit.parts.context
        act.count = len(await visit.run(lift_suppressions, context, [_key(address)], None, by=by, why=why))
    return visit.redirect(back, f"{address} is not suppressed any more.")


def _lifting(address: str, count: int, back: str, *, why: str = "", error: str = "") -> Confirmation:
    reason = FormField(
        name="why", label="Reason", value=why, error=error, hint="What the person wrote, and when. It is recorded."
    )
    return Confirmation(
        title=f"Send to {address} again?",
        button="Lift the suppression",
        action="/people/suppressions/lift",
        back=back,
        extents=[Extent(count=count, label="suppressions are lifted")],
        effects=[
            "Campaigns that are launched or continue from now on may send to it. Messages that were stopped stay so."
        ],
        fields=[reason],
        hidden={"address": address, "back": back},
    )


def _key(address: str) -> str:
    """Return the key of an address, @domain or #hash. Raises UsageError for any other text."""
    try:
        return suppression_key(address)
    except DataError as error:
        raise UsageError(
            f"{address[:80]!r} is not an address, @domain or #hash: {error.message}", remedy="Check its spelling."
        ) from None
