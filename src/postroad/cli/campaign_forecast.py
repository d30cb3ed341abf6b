"""postroad campaign forecast: when a campaign's mail will leave, what holds it, and what would help."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from postroad.cli.context import with_context
from postroad.cli.output import (
    JsonOption,
    Styled,
    print_json,
    print_line,
    print_note,
    print_table,
    progress_bars,
)
from postroad.errors import UsageError
from postroad.printable import counted

if TYPE_CHECKING:
    from postroad.app.context import AppContext
    from postroad.campaign.file_trial import FileTrial
    from postroad.forecast.report import CampaignForecast, HourForecast

HOURLY = 48
"""Up to so many hours are shown one by one; more are shown by day."""


def forecast(
    name: Annotated[str, typer.Argument(help="Name of the campaign.")],
    deadline: Annotated[
        str | None, typer.Option(help="By when everything should be sent: 2027-01-31T18:00Z, or 12h.")
    ] = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(help="Another value of a setting, as in sender.ada.rate=60/1h or provider.google.rate=10/1s."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Forecast hour by hour when a campaign's mail leaves, by sender and provider. Nothing is changed.

    A draft is forecast as if it was launched now, a running campaign from what is left of it. The limits are those that
    the queue obeys: rates, warmup caps as they will grow, shaping, pauses, the campaign's hours, overflow, and the mail
    of other campaigns that waits at the same gates. It assumes that no message is refused and no recipient replies, and
    it does not know how fast servers answer. It says what holds mail longest, and what would help.

    Ends with 1 if the campaign would not end, or not by the deadline.
    """
    from postroad.cli.options import at, parse_timestamp_ms
    from postroad.forecast.forecast import ForecastRequest, forecast_campaign

    async def work(context: AppContext) -> CampaignForecast:
        ends_ms = parse_timestamp_ms(deadline, context.clock.now_ms()) if deadline else None
        if ends_ms is not None and ends_ms < context.clock.now_ms():
            raise UsageError(f"--deadline {deadline}: this time is over", remedy="Name a time to come, or 12h.")
        return await forecast_campaign(
            context,
            ForecastRequest(
                campaign=name,
                deadline=at(ends_ms) if ends_ms is not None else None,
                changes=_changes(what_if or ()),
                coming=await asyncio.to_thread(_try_file, context, name, quiet=as_json),
            ),
        )

    found = with_context(work)
    if as_json:
        print_json(found)
    else:
        print_forecast(found)
    if not found.in_time:
        raise typer.Exit(1)


def _changes(given: Sequence[str]) -> dict[str, str]:
    changes: dict[str, str] = {}
    for one in given:
        path, sign, value = one.partition("=")
        if not sign or not path or not value:
            raise UsageError(f"--what-if {one!r}: write a path and a value, as in sender.ada.rate=60/1h")
        changes[path.strip()] = value.strip()
    return changes


def _try_file(context: AppContext, name: str, *, quiet: bool) -> FileTrial | None:
    """Read the file that a launch would import first, if there is one."""
    from postroad.campaign.audience_file import audience_file
    from postroad.campaign.file_trial import try_file
    from postroad.campaign.segment import Segment
    from postroad.store.campaign import find_campaign
    from postroad.store.engine import read
    from postroad.store.recipient import audience_name

    file = audience_file(context.engine, name)
    if file is None or not file.to_import:
        return None
    with read(context.engine) as connection:
        campaign = find_campaign(connection, name)
        audience = audience_name(connection, campaign.audience_id)
    with progress_bars(quiet=quiet) as bars:
        return try_file(
            context.engine,
            Segment.of(campaign, context.clock.now()),
            file.path,
            (),
            types=context.settings.field_types(audience),
            budget_s=0.0,
            progress=lambda done, total: bars("reading the audience", done, total),
        )


def print_forecast(found: CampaignForecast) -> None:
    """Print a forecast for people: the answer first."""
    print_line(Styled(found.campaign, "bold"), f": {_answer(found)}")
    for note in found.notes:
        print_note(note)
    print_table(
        f"{counted(found.recipients, 'message waits', 'messages wait')}, {found.messages:,.0f} would be sent in all",
        ["step", "messages", "first", "last (UTC)"],
        (
            [step.step, round(step.messages), f"{step.first_at:%a %Y-%m-%d %H:%M}", f"{step.last_at:%a %Y-%m-%d %H:%M}"]
            for step in found.steps
        ),
    )
    _print_hours(found.hours)
    if found.holds:
        print_table(
            "what holds mail, the longest first",
            ["cause", "limit", "hours of all messages together"],
            ([hold.cause, hold.limit, round(hold.message_hours)] for hold in found.holds[:10]),
        )
    for sender, messages in found.overflow.items():
        print_line(f"{sender} takes over {messages:,.0f} messages.")
    for one in found.helps:
        print_line(
            f"With {one.change} it would end {_hours(one.hours_earlier)} earlier: {one.ends_at:%a %Y-%m-%d %H:%M} UTC."
        )


def _answer(found: CampaignForecast) -> str:
    if found.ends_at is None:
        held = f" {found.holds[0].cause}: {found.holds[0].limit}." if found.holds else ""
        return f"it does not end.{held}"
    hours = (found.ends_at - found.made_at).total_seconds() / 3600
    ends = f"it ends {found.ends_at:%a %Y-%m-%d %H:%M} UTC, {_hours(hours)} from now"
    if found.deadline is None:
        return ends
    apart = _hours(abs((found.deadline - found.ends_at).total_seconds()) / 3600)
    if found.in_time:
        return f"{ends}, {apart} before the deadline"
    return f"{ends}, {apart} after the deadline, with {found.late:,.0f} messages late"


def _print_hours(hours: Sequence[HourForecast]) -> None:
    """Print messages by hour, or by day if there are many hours, with a column for each sender and provider."""
    from postroad.forecast.report import whole_messages

    format_ = "%a %Y-%m-%d %H:00" if len({one.hour for one in hours}) <= HOURLY else "%a %Y-%m-%d"
    columns = sorted({(one.sender, one.provider) for one in hours})
    sums: dict[str, Counter[tuple[str, str]]] = {}
    for one, messages in zip(hours, whole_messages(hours), strict=True):
        sums.setdefault(one.hour.strftime(format_), Counter())[one.sender, one.provider] += messages
    shown = columns if len(columns) <= 6 else []
    print_table(
        "messages by hour, UTC" if format_.endswith("00") else "messages by day, UTC",
        ["from", "all", *(f"{sender} to {provider}" for sender, provider in shown)],
        ([when, row.total(), *(row[column] for column in shown)] for when, row in sums.items() if row.total()),
    )


def _hours(hours: float) -> str:
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"
