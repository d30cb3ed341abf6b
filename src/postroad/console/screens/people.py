"""People: where they are from, what imports refused, and who gets no mail."""

from __future__ import annotations

from fastapi import Response

from postroad.app.context import AppContext
from postroad.campaign.suppression_file import suppression_key
from postroad.console.authorise import CurrentVisit
from postroad.console.confirm import Confirmation, Extent, FormField
from postroad.console.screen import NavSection, Screen
from postroad.errors import DataError, StateError, UsageError
from postroad.mail.address_hash import is_hash
from postroad.read_model import people
from postroad.settings import AccessRole
from postroad.store.suppression import SuppressionReason, lift, suppressions_with_keys

screen = Screen(name="people", title="People", path="/people", section=NavSection.RECORDS)

MAX_ADDRESS_CHARACTERS = 320
MAX_BY_CHARACTERS = 100

TONES = {
    SuppressionReason.UNSUBSCRIBE: "info",
    SuppressionReason.HARD_BOUNCE: "end",
    SuppressionReason.SOFT_BOUNCE: "warn",
    SuppressionReason.COMPLAINT: "bad",
    SuppressionReason.MANUAL: "wait",
}


@screen.get("/people", role=AccessRole.VIEW)
async def overview(visit: CurrentVisit) -> Response:
    """Show all audiences, and the suppressions by reason."""
    counts = await visit.read(people.suppression_counts)
    return visit.page(
        "people.html",
        audiences=await visit.read(people.audiences),
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
    """Show the imports and the members of an audience."""
    imports = await visit.read(people.imports, name, limit=10)
    members = await visit.read(people.audience_members, name, after=after)
    return visit.page("people_audience.html", name=name, imports=imports, members=members, first=after is None)


@screen.get("/people/audiences/{name}/imports", role=AccessRole.VIEW)
async def imports_of(visit: CurrentVisit, name: str, after: str | None = None) -> Response:
    """Show all imports into an audience."""
    imports = await visit.read(people.imports, name, after=after)
    return visit.page("people_imports.html", name=name, imports=imports, first=after is None)


@screen.get("/people/audiences/{name}/imports/{import_id}", role=AccessRole.VIEW)
async def refusals(visit: CurrentVisit, name: str, import_id: int, after: str | None = None) -> Response:
    """Show the rows that an import refused."""
    if not 0 < import_id < 2**62:
        raise UsageError("there is no import with this id", remedy="Open the list of imports.")
    rows = await visit.read(people.import_refusals, import_id, after=after)
    return visit.page("people_refusals.html", name=name, import_id=import_id, rows=rows, first=after is None)


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


@screen.get("/people/suppressions/lift", role=AccessRole.OPERATE)
async def ask_lift(visit: CurrentVisit, address: str) -> Response:
    """Show what lifting the suppressions of an address would touch."""
    keys = suppression_keys(visit.parts.context, address)
    found = await visit.read(suppressions_with_keys, keys)
    if not found:
        raise StateError(f"{address[:MAX_ADDRESS_CHARACTERS]} is not suppressed", remedy="Check its spelling.")
    return visit.confirm(_lifting(address, len(found)))


@screen.post("/people/suppressions/lift", role=AccessRole.OPERATE)
async def lift_suppressions(visit: CurrentVisit) -> Response:
    """Lift the suppressions of an address."""
    form = await visit.form()
    address = form.text("address", max_characters=MAX_ADDRESS_CHARACTERS)
    why = form.text("why", max_characters=200)
    keys = suppression_keys(visit.parts.context, address)
    if form.errors:
        found = await visit.read(suppressions_with_keys, keys)
        return visit.confirm(_lifting(address, len(found), why=why, error=form.errors.get("why", "")), status=422)
    async with visit.act("suppression.lift", address, note=why) as act:
        by, now = visit.user.user[:MAX_BY_CHARACTERS], visit.parts.now()
        act.count = len(await visit.run(lift, visit.parts.engine, keys, None, by=by, why=why, now=now))
    if not act.count:
        raise StateError("this is not suppressed any more", remedy="Another user may have lifted it.")
    return visit.redirect("/people/suppressions", f"{address} is not suppressed any more.")


def _lifting(address: str, count: int, *, why: str = "", error: str = "") -> Confirmation:
    reason = FormField(
        name="why", label="Reason", value=why, error=error, hint="What the person wrote, and when. It is recorded."
    )
    return Confirmation(
        title=f"Send to {address} again?",
        button="Lift the suppression",
        action="/people/suppressions/lift",
        back="/people/suppressions",
        extents=[Extent(count=count, label="suppressions are lifted")],
        effects=[
            "Campaigns that are launched or continue from now on may send to it. Messages that were stopped stay so."
        ],
        fields=[reason],
        hidden={"address": address},
    )


def suppression_keys(context: AppContext, address: str) -> list[str]:
    """Return the keys under which an address, @domain or #hash may be suppressed.

    Raises:
        UsageError: It is none of these.
    """
    try:
        key = suppression_key(address)
    except DataError as error:
        raise UsageError(
            f"{address[:80]!r} is not an address, @domain or #hash: {error.message}", remedy="Check its spelling."
        ) from None
    if key.startswith("@") or is_hash(key):
        return [key]
    return [key, context.hash_of(key), *context.hash_of.older(key)]
