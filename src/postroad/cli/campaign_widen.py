"""postroad campaign widen: let the next share of a rollout go."""

from __future__ import annotations

from typing import Annotated

import typer

from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, confirm, print_json, print_line


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
    from postroad.app.rollouts import running_rollout
    from postroad.app.rollouts import widen as widen_rollout
    from postroad.cli.unknown import default_actor

    status = with_context(lambda context: running_rollout(context, name))
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
    done = with_context(lambda context: widen_rollout(context, name, number, by=who))
    if as_json:
        fields = {"campaign": name, "share": number, "people": coming.people, "already": not done.opened}
        print_json({**fields, "submitted": done.advance.submitted, "by": who})
    else:
        print_line(f"share {number} of campaign {name} {'is' if done.opened else 'was before'} let go")
