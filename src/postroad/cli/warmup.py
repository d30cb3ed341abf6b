"""postroad warmup: how much a new sender may send each day, and why."""

from __future__ import annotations

import asyncio
import getpass
import socket
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

import typer
from msgspec.structs import asdict
from pydantic import ValidationError

from postroad.app.context import AppContext
from postroad.app.warmup import override_caps
from postroad.cli import warmup_import
from postroad.cli.context import with_context
from postroad.cli.names import named_sender, require_provider
from postroad.cli.output import JsonOption, print_json, print_line, print_table
from postroad.cli.row_limit import MAX_NUMBER
from postroad.errors import UsageError, unknown_name
from postroad.field_faults import field_faults
from postroad.local.prefect_api import open_prefect
from postroad.local.warmups import MINUTE, schedule_warmups, warming_senders
from postroad.settings import Preset, Settings, WarmupSettings
from postroad.store.campaign import find_campaign
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from postroad.store.overflow import Moved, moved
from postroad.store.reputation import ReputationDay
from postroad.store.warmup import WarmupOverride, overrides_of
from postroad.warmup.identity import WarmingIdentity, identities, of_sender
from postroad.warmup.plan import Plan, plan_for
from postroad.warmup.show import draw_days
from postroad.warmup.simulate import Rates, SimulatedDay
from postroad.warmup.simulate import simulate as simulate_days
from postroad.warmup.status import (
    COLUMNS,
    WarmupStatus,
    describe_report,
    newest,
    reports_of,
    table_row,
    warmup_statuses,
)

app = typer.Typer(
    help="Warmup: how much a new sender may send at each mailbox provider, day by day.", no_args_is_help=True
)
app.add_typer(warmup_import.app, name="import")

SenderOption = Annotated[str | None, typer.Option(help="Take the plan of this sender in postroad.toml.")]
PresetOption = Annotated[Preset, typer.Option(help="How the cap grows.")]
ProviderOption = Annotated[str, typer.Option(help="Mailbox provider; `google` grows more slowly by the curve.")]
FirstOption = Annotated[
    int | None, typer.Option(help="Cap of the first day; unset: the preset's.", min=1, max=MAX_NUMBER)
]
CeilingOption = Annotated[
    int | None, typer.Option(help="It grows no further; unset: the preset's.", min=1, max=MAX_NUMBER)
]
DaysOption = Annotated[int, typer.Option(help="Days to show.", min=1, max=400)]


@app.command("plan")
def plan(
    sender: SenderOption = None,
    preset: PresetOption = Preset.CURVE,
    provider: ProviderOption = "other",
    first: FirstOption = None,
    ceiling: CeilingOption = None,
    days: DaysOption = 45,
    as_json: JsonOption = False,
) -> None:
    """Show the caps that a plan comes to when all goes well. It needs no setup."""
    caps = list(islice(_plan(sender, preset, provider, first, ceiling).caps(), days))
    if as_json:
        print_json([{"day": number, "cap": cap} for number, cap in enumerate(caps, start=1)])
    else:
        print_table(
            f"caps at {provider}, messages a day", ["day", "cap"], ([n, cap] for n, cap in enumerate(caps, start=1))
        )


@app.command("simulate")
def simulate(
    sender: SenderOption = None,
    preset: PresetOption = Preset.CURVE,
    provider: ProviderOption = "other",
    first: FirstOption = None,
    ceiling: CeilingOption = None,
    days: DaysOption = 45,
    bounce: Annotated[float, typer.Option(help="Share of hard bounces.", min=0, max=1)] = 0.0,
    complaint: Annotated[float, typer.Option(help="Share of complaints.", min=0, max=1)] = 0.0,
    deferral: Annotated[float, typer.Option(help="Share of deferrals (4xx).", min=0, max=1)] = 0.0,
    block: Annotated[float, typer.Option(help="Share that is refused for the sender's sake.", min=0, max=1)] = 0.0,
    used: Annotated[float, typer.Option(help="Share of each cap that there is mail for.", min=0, max=1)] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Simulate the next days of a warmup with the given rates: a table and a chart of the caps and the plan.

    It makes the real decisions on simulated mail. It needs no setup. --json prints the days without the chart.
    """
    rates = Rates(bounced=bounce, complained=complaint, deferred=deferral, blocked=block, used=used)
    chosen = _plan(sender, preset, provider, first, ceiling)
    simulated = list(simulate_days(chosen, days, lambda _: rates, start=datetime.now(UTC).date()))
    if as_json:
        print_json([_plain_day(day) for day in simulated])
        return
    print_table(
        f"the next {days} days at {provider}, if it goes as stated",
        ["day", "cap", "plan", "sent", "delivered", "", "why"],
        (
            [
                each.number,
                each.day.cap,
                each.planned,
                each.day.counts.attempts,
                each.day.counts.accepted,
                each.day.move,
                each.day.reason,
            ]
            for each in simulated
        ),
    )
    for line in draw_days(simulated):
        print_line(line)
    print_line("Each tenfold is as wide as the one before; │ is the plan.")


@app.command("status")
def status(
    sender: Annotated[str | None, typer.Argument(help="Name of a sender; unset: all that warm up.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show today's caps at each mailbox provider with their reasons, the providers' reports, and manual overrides."""

    async def work(context: AppContext) -> tuple[list[WarmupStatus], list[ReputationDay], list[WarmupOverride]]:
        found = identities(context.settings) if sender is None else _identities_of(context.settings, sender)
        now = context.clock.now()

        def look() -> tuple[list[WarmupStatus], list[ReputationDay], list[WarmupOverride]]:
            standing, reported = warmup_statuses(context.engine, found, now), reports_of(context.engine, found, now)
            with read(context.engine) as connection:
                return standing, reported, overrides_of(connection, [identity.name for identity in found])

        return await asyncio.to_thread(look)

    found, reported, overrides = with_context(work)
    if as_json:
        print_json(
            {
                "caps": [_plain_standing(each) for each in found],
                "reported": [report.model_dump(mode="json", exclude={"imported_at"}) for report in reported],
                "overrides": [override.model_dump() | {"day": str(override.day)} for override in overrides],
            }
        )
        return
    if found:
        print_table("warmup", COLUMNS, map(table_row, found))
    else:
        print_line("A sender that warms up sent nothing yet, and nothing waits to be sent by it.")
    if any(each.late for each in found):
        print_line("Today is not decided yet: the last caps hold. `postroad warmup schedule` lets the flow run daily.")
    for report in newest(reported):
        print_line(describe_report(report))
    for override in overrides:
        print_line(
            f"{override.identity} at {override.provider}: {override.cap:,} on {override.day}, "
            f"set by {override.by}: {override.why}",
        )


@app.command("override")
def override(
    sender: Annotated[str, typer.Argument(help="Name of the sender in postroad.toml.")],
    provider: Annotated[str, typer.Argument(help="Mailbox provider, or `other`.")],
    cap: Annotated[int, typer.Option(help="Messages today; growth continues from there.", min=1, max=10**9)],
    why: Annotated[str, typer.Option(help="The reason, which is recorded.")],
    identity: Annotated[
        str | None, typer.Option(help="Only for its address, domain or source address; unset: for all of them.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who says so; unset: your user and host.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Set today's cap manually and end a pause. It applies at once on all workers. Operator and reason are recorded."""
    who = by or f"{getpass.getuser()}@{socket.gethostname()}"
    require_provider(provider)
    if not why.strip():
        raise UsageError("--why is empty", remedy="State the reason, which `postroad warmup status` shows.")

    async def work(context: AppContext) -> list[str]:
        chosen = _chosen(_identities_of(context.settings, sender), identity)
        await override_caps(context, chosen, provider, cap, by=who, why=why)
        return [each.name for each in chosen]

    names = with_context(work)
    if as_json:
        print_json({"identities": names, "provider": provider, "cap": cap, "by": who, "why": why})
    else:
        print_line(f"{', '.join(names)} may send {cap:,} today at {provider}")


@app.command("overflow")
def overflow(
    campaign: Annotated[str, typer.Argument(help="Name of a campaign.")],
    as_json: JsonOption = False,
) -> None:
    """Show what of a campaign went to other senders: who was to send it, who was given it and why, what came of it."""

    async def work(context: AppContext) -> list[Moved]:
        def look() -> list[Moved]:
            with read(context.engine) as connection:
                return moved(connection, find_campaign(connection, campaign).id or 0)

        return await asyncio.to_thread(look)

    rows = [_plain_moved(each) for each in with_context(work)]
    if as_json:
        print_json(rows)
    elif rows:
        columns = ["step", "from_sender", "sender", "messages", "accepted", "waiting", "why", "first_at", "last_at"]
        titles = ["step", "was to send", "sends", *columns[3:7], "from", "to"]
        print_table(f"overflow of {campaign}", titles, ([each[column] for column in columns] for each in rows))
    else:
        print_line(f"Nothing of {campaign} went to another sender.")


@app.command("schedule")
def schedule(
    minute: Annotated[int, typer.Option(help="Minute of the hour from 04:00 on.", min=0, max=59)] = MINUTE,
    as_json: JsonOption = False,
) -> None:
    """Let Prefect close the day of each sender that warms up, at 04:20 by the clock of its zone.

    A sender that has a schedule keeps it as it is; you see and edit them in Prefect's UI.
    """
    settings = Settings.load()

    async def work() -> dict[str, bool]:
        async with open_prefect(settings) as prefect:
            return await schedule_warmups(settings, prefect, minute)

    made = asyncio.run(work()) if warming_senders(settings) else {}
    if as_json:
        print_json([{"sender": name, "made": new} for name, new in made.items()])
        return
    for name, new in made.items():
        print_line(f"{name}: {'scheduled' if new else 'has a schedule already'}")
    if not made:
        print_line("no sender warms up")


def _plan(sender: str | None, preset: Preset, provider: str, first: int | None, ceiling: int | None) -> Plan:
    require_provider(provider)
    if sender is not None:
        return plan_for(_identities_of(Settings.load(), sender)[0].warmup, provider)
    try:
        return plan_for(WarmupSettings(preset=preset, first=first, ceiling=ceiling), provider)
    except ValidationError as error:
        fault = field_faults(error, WarmupSettings, kind="setting", top="[senders.NAME.warmup]")[0]
        raise UsageError(str(fault), remedy="A table of your own is in postroad.toml: name its --sender.") from None


def _chosen(found: list[WarmingIdentity], name: str | None) -> list[WarmingIdentity]:
    chosen = [identity for identity in found if name in (None, identity.name)]
    if not chosen:
        raise unknown_name("identity of this sender", name or "", [identity.name for identity in found])
    return chosen


def _identities_of(settings: Settings, sender: str) -> list[WarmingIdentity]:
    named_sender(settings, sender)
    return of_sender(settings, sender)


def _plain_day(each: SimulatedDay) -> dict[str, Any]:
    day = each.day
    return {
        "number": each.number,
        "day": str(day.day),
        "cap": day.cap,
        "planned": each.planned,
        "move": day.move,
        "reason": day.reason,
        "paused_until": day.paused_until,
        **asdict(day.counts),
    }


def _plain_moved(each: Moved) -> dict[str, Any]:
    return {
        "step": each.step,
        "from_sender": each.from_sender,
        "sender": each.sender,
        "messages": each.states.total(),
        "accepted": each.states[TouchState.ACCEPTED],
        "waiting": sum(count for state, count in each.states.items() if not state.ended),
        "states": dict(sorted(each.states.items())),
        "why": each.why,
        "first_at": each.first_at,
        "last_at": each.last_at,
    }


def _plain_standing(each: WarmupStatus) -> dict[str, Any]:
    return {
        "identity": each.identity,
        "provider": each.provider,
        "late": each.late,
        "used": each.used,
        "waiting": each.waiting,
        "days": [_plain_day(day) for day in each.days],
    }
