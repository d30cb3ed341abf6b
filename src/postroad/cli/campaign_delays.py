"""postroad campaign delays: where the hours from due to accepted went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from postroad.cli.context import with_context
from postroad.cli.explain import duration
from postroad.cli.output import JsonOption, print_json, print_line, print_table, progress_bars
from postroad.printable import counted

if TYPE_CHECKING:
    from postroad.explain.campaign_delays import CampaignDelays, DelaySum


def delays(
    name: Annotated[str, typer.Argument(help="Name of the campaign.")],
    as_json: JsonOption = False,
) -> None:
    """Show where the time of a campaign went: the hours from due to accepted, charged to causes.

    The causes add up exactly. Up to 10,000 messages all are read. Of a larger campaign 10,000 are read, spread evenly
    over its recipients, and the sums are those of this sample. `postroad explain ADDRESS` shows single messages.
    """
    from postroad.explain.campaign_delays import campaign_delays

    with progress_bars(quiet=as_json) as bars:
        found = with_context(
            lambda context: campaign_delays(context, name, progress=lambda done, of: bars("reading", done, of))
        )
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(found))
        return
    _print(found)


def _print(found: CampaignDelays) -> None:
    sample = f", of which {found.read:,} were read as a sample" if found.sampled else ""
    print_line(f"campaign {found.campaign}: {counted(found.touches, 'message')}{sample}")
    _print_sum("accepted: from due to accepted", found.accepted)
    _print_sum("waiting: from due until now", found.waiting)


def _print_sum(title: str, delays: DelaySum) -> None:
    if not delays.touches:
        return
    print_table(
        f"{title}, {counted(delays.touches, 'message')}, {duration(delays.total_ms)} in total; median "
        f"{duration(delays.median_ms)}, 95 % within {duration(delays.p95_ms)}, longest {duration(delays.longest_ms)}",
        ["cause", "time", "share", "milliseconds"],
        [[one.label, duration(one.ms), f"{one.ms / delays.total_ms:.1%}", one.ms] for one in delays.delays],
    )
