"""Warmup: whether senders are on their curves, why not, and how today's cap is set manually."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Final

from fastapi import Query, Response

from postroad.app.warmup import override_caps
from postroad.console.authorise import CurrentVisit
from postroad.console.confirm import Confirmation, Extent, FormField
from postroad.console.forms import ConsoleForm
from postroad.console.receiver_view import queue_gates
from postroad.console.screen import NavSection, Screen
from postroad.console.visit import Visit
from postroad.console.warmup_view import MOVE_TONES, curve_chart, plan_chart, warmup_url
from postroad.errors import unknown_name
from postroad.gates.name import GateName
from postroad.read_model.page import Page, decode_cursor, to_page
from postroad.read_model.warmups import WarmupCurve, warmups
from postroad.settings import AccessRole
from postroad.warmup.caps import providers
from postroad.warmup.day import day_of
from postroad.warmup.identity import WarmingIdentity, group_of, identities
from postroad.warmup.plan import MAX_CAP, plan_for
from postroad.warmup.simulate import SimulatedDay

screen = Screen(name="warmup", title="Warmup", path="/warmup", section=NavSection.DELIVERY)

ROWS: Final = 31
MAX_REASON: Final = 400

IdentityText = Annotated[str, Query(max_length=320)]
ProviderText = Annotated[str, Query(max_length=100)]


@screen.get("/warmup", role=AccessRole.VIEW)
async def overview(visit: CurrentVisit) -> Response:
    """Show today's caps of each identity that warms up, at each mailbox provider."""
    warming = identities(visit.parts.settings)
    curves = await visit.read(warmups, warming, visit.parts.now())
    of_identity = {each.name: [curve for curve in curves if curve.status.identity == each.name] for each in warming}
    return visit.page(
        "warmup.html",
        warming=warming,
        curves=of_identity,
        first_caps={each.name: plan_for(each.warmup, providers()[-1]).first for each in warming},
        chart_of=curve_chart,
        tones=MOVE_TONES,
        url_of=warmup_url,
    )


@screen.get("/warmup/curve", role=AccessRole.VIEW)
async def curve(
    visit: CurrentVisit,
    identity: IdentityText,
    provider: ProviderText,
    after: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """Show the curve of one identity at one mailbox provider next to its plan, with every decision."""
    warming, found = await _curve(visit, identity, provider)
    values: dict[str, Any] = {"page": None, "planned": ()}
    if found is None:
        chart, values["planned"] = plan_chart(warming, provider, day_of(warming, visit.parts.now()))
    else:
        chart, values["page"] = curve_chart(found.status.days), _decisions(found, after)
    return visit.page(
        "warmup_curve.html",
        warming=warming,
        provider=provider,
        curve=found,
        chart=chart,
        **values,
        first=after is None,
        tones=MOVE_TONES,
        url_of=warmup_url,
    )


def _decisions(found: WarmupCurve, after: str | None) -> Page[SimulatedDay]:
    before = decode_cursor(after, date, date.max)
    rows = [each for each in reversed(found.status.days) if each.day.day < before]
    return to_page(rows[: ROWS + 1], ROWS, lambda each: each.day.day)


async def _curve(visit: Visit, identity: str, provider: str) -> tuple[WarmingIdentity, WarmupCurve | None]:
    """Return an identity and its curve at a provider. None: nothing is decided there yet."""
    chosen = next(each for each in _group(visit, identity) if each.name == identity)
    found = await visit.read(warmups, [chosen], visit.parts.now())
    of_provider = next((each for each in found if each.status.provider == provider), None)
    if of_provider is None and provider not in providers():
        raise unknown_name("mailbox provider", provider, providers())
    return chosen, of_provider


def _group(visit: Visit, identity: str) -> Sequence[WarmingIdentity]:
    """Return an identity with those that share its gate."""
    return group_of(identities(visit.parts.settings), identity)


async def _overriding(visit: Visit, identity: str, provider: str, form: ConsoleForm | None = None) -> Confirmation:
    warming, found = await _curve(visit, identity, provider)
    group = _group(visit, identity)
    gates = await queue_gates(visit)
    state = gates.states.get(str(GateName.warmup(provider, group[0].name)))
    cap = found.status.today.cap if found is not None else plan_for(warming.warmup, provider).first
    extents = [Extent(count=cap, label="messages are today's cap now", href=_curve_url(identity, provider))]
    names = ", ".join(each.name for each in group)
    effects = [
        f"The cap applies at once on all workers, to {names} at {provider}. Growth continues from it. A pause ends.",
        "A message needs room in the caps of all identities of its sender: the smallest one limits it.",
    ]
    if found is not None:
        extents.append(Extent(count=found.sent_today, label="messages were sent today"))
    if state is not None:
        extents.append(Extent(count=state.parked_lanes, label="lanes of the queue wait for it now"))
    elif gates.problem is not None:
        effects.append(f"How many lanes wait for it is not known: {gates.problem.message}.")
    return Confirmation(
        title=f"Set today's cap of {identity} at {provider}?",
        button="Set the cap",
        action=warmup_url("override"),
        back=_curve_url(identity, provider),
        extents=extents,
        effects=effects,
        fields=_fields(form),
        hidden={"identity": identity, "provider": provider},
    )


def _curve_url(identity: str, provider: str) -> str:
    return warmup_url("curve", identity=identity, provider=provider)


def _fields(form: ConsoleForm | None) -> list[FormField]:
    def field(name: str, label: str, hint: str) -> FormField:
        value, error = (form.raw(name), form.errors.get(name, "")) if form is not None else ("", "")
        return FormField(name=name, label=label, value=value, error=error, hint=hint)

    return [
        field("cap", "Messages today", f"From 1 to {MAX_CAP:,}."),
        field("why", "Reason", "It is recorded, and shown with the day."),
    ]


def _cap(form: ConsoleForm) -> int:
    text = form.text("cap", max_characters=13).replace(",", "")
    if "cap" not in form.errors and not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MAX_CAP):
        form.errors["cap"] = f"Enter a whole number from 1 to {MAX_CAP:,}."
    return int(text) if "cap" not in form.errors else 0


@screen.get("/warmup/override", role=AccessRole.OPERATE)
async def ask_override(visit: CurrentVisit, identity: IdentityText, provider: ProviderText) -> Response:
    """Show what setting today's cap touches."""
    return visit.confirm(await _overriding(visit, identity, provider))


@screen.post("/warmup/override", role=AccessRole.OPERATE)
async def override(visit: CurrentVisit) -> Response:
    """Set today's cap of an identity at a mailbox provider."""
    form = await visit.form()
    identity = form.text("identity", max_characters=320)
    provider = form.text("provider", max_characters=100)
    cap, why = _cap(form), form.text("why", max_characters=MAX_REASON)
    await _curve(visit, identity, provider)  # Both exist.
    if form.errors:
        return visit.confirm(await _overriding(visit, identity, provider, form), status=422)
    await visit.parts.queue()  # A page starts no server.
    group = _group(visit, identity)
    by = f"{visit.user.user} in the console"
    async with visit.act("warmup.override", f"{identity} at {provider}", count=len(group), note=f"{cap:,}: {why}"):
        await override_caps(visit.parts.context, group, provider, cap, by=by, why=why)
    return visit.redirect(_curve_url(identity, provider), f"{identity} may send {cap:,} today at {provider}.")
