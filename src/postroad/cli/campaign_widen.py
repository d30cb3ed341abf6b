"""postroad campaign widen: let the next share of a rollout go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, confirm, print_json, print_line

if TYPE_CHECKING:
    from postroad.app.advance import Advance
    from postroad.app.context import AppContext
    from postroad.senders.rollout import RolloutStatus


def widen(
    name: Annotated[str, typer.Argument(help="Name of the campaign.")],
    by: Annotated[str | None, typer.Option(help="Who says so; unset: your user and host.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let the next share of a campaign's rollout go, whatever holds it. First it shows how many people that are.

    A pass over the campaigns does this by itself when the outcomes of the shares before are good. The command also
    makes a pass over this campaign, so that the messages of the share are planned at once.
    """
    from postroad.app.advance import advance_campaign
    from postroad.cli.unknown import default_actor
    from postroad.senders.rollout import widen as widen_rollout

    status = with_context(lambda context: _read(context, name))
    coming = status.next
    if coming is None:
        if as_json:
            print_json({"campaign": name, "share": None, "people": 0, "already": True})
        else:
            print_line(f"every share of campaign {name} was let go")
        return
    if not as_json:
        which = f"share {coming.number} of {len(status.shares)} of campaign {name}"
        print_line(f"{which} has {coming.people:,} people; with those before it, {coming.percent} of the audience")
        if coming.held_why is not None:
            print_line(f"It is not let go by itself: {coming.held_why}.")
    if not yes:
        confirm(f"Let share {coming.number} of campaign {name} go?")
    who, number = default_actor(by), coming.number

    async def work(context: AppContext) -> tuple[bool, Advance]:
        now = context.clock.now()
        done = await asyncio.to_thread(widen_rollout, context.engine, name, number, by=who, now=now)
        return done, await advance_campaign(context, name)

    opened, advance = with_context(work)
    if as_json:
        fields = {"campaign": name, "share": number, "people": coming.people, "already": not opened}
        print_json({**fields, "submitted": advance.submitted, "by": who})
    else:
        print_line(f"share {number} of campaign {name} {'is' if opened else 'was before'} let go")


async def _read(context: AppContext, name: str) -> RolloutStatus:
    from postroad.senders.rollout import require_rollout
    from postroad.store.campaign import find_campaign
    from postroad.store.engine import read

    def find() -> RolloutStatus:
        with read(context.engine) as connection:
            return require_rollout(connection, find_campaign(connection, name))

    return await asyncio.to_thread(find)
