"""postroad webhook: endpoints that get events, what they got, and what they get again."""

from __future__ import annotations

import asyncio
import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from postroad.cli.context import with_context
from postroad.cli.options import parse_duration_option_ms
from postroad.cli.output import JsonOption, print_json, print_line, print_table, progress_bars
from postroad.cli.row_limit import LimitOption
from postroad.errors import UsageError
from postroad.printable import counted

if TYPE_CHECKING:
    from postroad.app.context import AppContext
    from postroad.app.webhooks import Replay
    from postroad.events_out.client import WebhookAnswer
    from postroad.events_out.status import EndpointReport
    from postroad.store.webhook_log import LogRow

app = typer.Typer(
    help="Webhooks to your systems: every event of a message, signed by Standard Webhooks.", no_args_is_help=True
)
EndpointArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the endpoint: [webhooks_out.NAME].")]
FOLLOW_EVERY_S = 0.5


def parse_since(text: str, now: datetime) -> datetime:
    """Parse a time in the past: a duration before now (`2d`), or a timestamp in ISO 8601 (default zone: UTC).

    Args:
        text: The duration or timestamp.
        now: The time.

    Returns:
        The time in UTC.

    Raises:
        UsageError: The text is neither.
    """
    try:
        return datetime.fromtimestamp(now.timestamp() - parse_duration_option_ms(text) / 1000, UTC)
    except UsageError:
        pass
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text[:40]!r} is neither a duration such as 2d nor a timestamp such as 2027-01-31T09:00Z"
        ) from None


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the endpoints: whether each is enabled, its lag, and its last attempt."""
    from postroad.app.webhooks import list_endpoints

    async def work(context: AppContext) -> list[EndpointReport]:
        return await list_endpoints(context)

    reports = with_context(work)
    if as_json:
        print_json(msgspec.to_builtins(reports))
        return
    rows = [
        (
            report.name,
            f"{report.status}: {report.disabled_for}" if report.disabled_for else report.status,
            report.url,
            f"{report.lag_s:,.0f} s",
            report.waiting,
            report.dead,
            report.last_outcome or "",
        )
        for report in reports
    ]
    print_table("webhook endpoints", ["name", "status", "url", "lag", "waiting", "dead", "last attempt"], rows)


@app.command("log")
def log_(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of the endpoint; unset: all.")] = None,
    event: Annotated[str | None, typer.Option(help="Only attempts with this event id: evt_….")] = None,
    before: Annotated[
        int | None, typer.Option(help="Only attempts before this number: the last one of a page.", max=2**63 - 1)
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List attempts, the newest first."""
    from postroad.app.webhooks import webhook_log

    async def work(context: AppContext) -> list[LogRow]:
        return await webhook_log(context, endpoint=name, message_id=event, before=before, limit=limit)

    found = with_context(work)
    if as_json:
        print_json([row._asdict() for row in found])
        return
    columns = ["number", "endpoint", "event", "type", "attempt", "at", "ms", "outcome", "status", "error"]
    rows = [
        (
            row.id,
            row.endpoint,
            row.message_id,
            row.type,
            row.attempt,
            row.at,
            row.duration_ms,
            row.outcome,
            "" if row.status is None else row.status,
            row.error or "",
        )
        for row in found
    ]
    print_table("attempts", columns, rows)


@app.command("send-test")
def send_test(name: EndpointArgument, as_json: JsonOption = False) -> None:
    """Send an event of the type postroad.test at once, and show the response. Exits 6 if it is not accepted."""
    from postroad.app.webhooks import send_test as send
    from postroad.events_out.client import WebhookOutcome

    async def work(context: AppContext) -> tuple[str, WebhookAnswer]:
        return await send(context, name)

    event, answer = with_context(work)
    if as_json:
        print_json({"event": event, **answer._asdict()})
    else:
        status = f" {answer.status}" if answer.status is not None else ""
        error = f": {answer.error}" if answer.error else ""
        print_line(f"{event}: {answer.outcome}{status} after {answer.duration_ms:,} ms{error}")
    if answer.outcome is not WebhookOutcome.DELIVERED:
        raise typer.Exit(6)


@app.command("redeliver")
def redeliver(
    name: EndpointArgument,
    events: Annotated[list[str], typer.Argument(metavar="EVENT…", help="Ids of events in the log: evt_….")],
    as_json: JsonOption = False,
) -> None:
    """Send single events again. Their ids stay the same, so that the receiver can recognise them."""
    from postroad.app.webhooks import redeliver as send_again

    async def work(context: AppContext) -> int:
        return await send_again(context, name, events)

    count = with_context(work)
    if as_json:
        print_json({"redelivered": count})
    else:
        print_line(f"{counted(count, 'event')} will be sent to {name} again")


@app.command("replay")
def replay(
    name: EndpointArgument,
    since: Annotated[str, typer.Option(help="Since when: a duration such as 2d, or 2027-01-31T09:00Z.")],
    wait: Annotated[bool, typer.Option(help="Wait until all events are in the queue, and show the progress.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send all events since a time again, in their order. Newer events follow after them.

    Their ids stay the same. The endpoint must have been seen by a recorder, which reads the events.
    """
    from postroad.app.webhooks import replay_events

    async def work(context: AppContext) -> Replay:
        begun = await replay_events(context, name, parse_since(since, context.clock.now()))
        if wait:
            await _follow(context, name, begun, quiet=as_json)
        return begun

    begun = with_context(work)
    if as_json:
        print_json(begun._asdict())
    else:
        print_line(f"{name} gets {counted(begun.until - begun.after, 'recorded event')} again, as far as it wants them")


async def _follow(context: AppContext, name: str, begun: Replay, *, quiet: bool) -> None:
    from postroad.app.webhooks import replayed

    total = begun.until - begun.after
    with progress_bars(quiet=quiet) as report:
        done = 0
        while done < total:
            done = min(await replayed(context, name) - begun.after, total)
            report("replaying", done, total)
            await asyncio.sleep(FOLLOW_EVERY_S if done < total else 0)


@app.command("enable")
def enable(name: EndpointArgument, as_json: JsonOption = False) -> None:
    """Enable an endpoint. It gets its backlog from where it stopped."""
    _set_enabled(name, enabled=True, why="", as_json=as_json)


@app.command("disable")
def disable(
    name: EndpointArgument,
    why: Annotated[str, typer.Option(help="Reason, which `postroad webhook list` shows.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Disable an endpoint. Its backlog waits in the ledger until it is enabled."""
    _set_enabled(name, enabled=False, why=why or f"by {getpass.getuser()}", as_json=as_json)


def _set_enabled(name: str, *, enabled: bool, why: str, as_json: bool) -> None:
    from postroad.app.webhooks import set_enabled

    async def work(context: AppContext) -> bool:
        return await set_enabled(context, name, enabled=enabled, why=why)

    changed = with_context(work)
    state = "enabled" if enabled else "disabled"
    if as_json:
        print_json({"endpoint": name, "status": state, "changed": changed})
    else:
        print_line(f"{name} is {state}" if changed else f"{name} was {state} before")


@app.command("secret")
def secret(as_json: JsonOption = False) -> None:
    """Make a signing secret, for `secret`, `secrets` or `secret_file` of an endpoint. It is stored nowhere."""
    from postroad.events_out.signature import make_secret

    made = make_secret()
    if as_json:
        print_json({"secret": made})
    else:
        print_line(made)
