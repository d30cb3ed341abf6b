"""postroad api-key: keys of the HTTP API."""

from __future__ import annotations

import asyncio
import getpass
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_line, print_table, print_text
from postroad.errors import UsageError
from postroad.settings import AccessRole

if TYPE_CHECKING:
    from postroad.app.api_keys import NewApiKey
    from postroad.app.context import AppContext
    from postroad.store.api_key import ApiKey

app = typer.Typer(help="Keys of the HTTP API, which programs use.", no_args_is_help=True)

_LAST_YEAR = 2999


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Name of the key, by which the audit log names it.")],
    scope: Annotated[
        AccessRole,
        typer.Option(
            help="What the key may do. view: read. send: also request messages, and record recipients and events. "
            "operate: also launch, pause and resume, and decide what is undecided. own: everything."
        ),
    ],
    expires: Annotated[
        str, typer.Option(help="When it ends: after a duration, as in 90d, or at a date; unset: never.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a key, and print it. It is shown once: the database has only a hash of it."""

    async def work(context: AppContext) -> NewApiKey:
        from postroad.app.api_keys import create_key
        from postroad.store.audit import Actor, record_act
        from postroad.store.engine import write

        now = context.clock.now()
        ends = _end(expires, now)

        def make() -> NewApiKey:
            with write(context.engine) as connection:
                made = create_key(connection, name, scope, expires_at=ends, now=now)
                actor = Actor(name=getpass.getuser(), origin=socket.gethostname())
                record_act(connection, actor, "api-key.create", name, 1, at=now, note=f"scope {scope}")
                return made

        return await asyncio.to_thread(make)

    made = with_context(work)
    if as_json:
        print_json({"name": made.name, "scope": made.scope, "expires_at": made.expires_at, "key": made.secret})
    else:
        print_text(made.secret)


def _end(text: str, now: datetime) -> datetime | None:
    from postroad.field_types import read_date_ms
    from postroad.settings import parse_duration_ms

    if not text.strip():
        return None
    at_ms = read_date_ms(text.strip())
    if at_ms is not None:
        return datetime.fromtimestamp(at_ms / 1000, UTC)
    try:
        ends = now + timedelta(milliseconds=parse_duration_ms(text))
    except (ValueError, OverflowError):
        ends = None
    if ends is None or ends.year > _LAST_YEAR:
        raise UsageError(
            f"--expires {text[:40]!r} is neither a duration nor a date",
            remedy="Write it as in 90d, 2027-01-31 or 2027-01-31T09:00:00+02:00.",
        )
    return ends


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the keys with their scopes and their last use. The keys themselves are not stored."""

    async def work(context: AppContext) -> list[ApiKey]:
        from postroad.store.api_key import api_keys
        from postroad.store.engine import read

        def find() -> list[ApiKey]:
            with read(context.engine) as connection:
                return api_keys(connection)

        return await asyncio.to_thread(find)

    keys = with_context(work)
    columns = ["name", "scope", "prefix", "created_at", "expires_at", "revoked_at", "last_used_at"]
    if as_json:
        print_json([{column: getattr(key, column) for column in columns} for key in keys])
    else:
        print_table("API keys", columns, ([getattr(key, column) for column in columns] for key in keys))


@app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the key.")],
    as_json: JsonOption = False,
) -> None:
    """Revoke a key. Its next request is refused. Its name stays taken, because the audit log has it."""

    async def work(context: AppContext) -> ApiKey:
        from postroad.store.api_key import revoke_key
        from postroad.store.audit import Actor, record_act
        from postroad.store.engine import write

        def end() -> ApiKey:
            with write(context.engine) as connection:
                now = context.clock.now()
                revoked = revoke_key(connection, name, now)
                actor = Actor(name=getpass.getuser(), origin=socket.gethostname())
                record_act(connection, actor, "api-key.revoke", name, 1, at=now)
                return revoked

        return await asyncio.to_thread(end)

    key = with_context(work)
    if as_json:
        print_json({"name": key.name, "revoked_at": key.revoked_at})
    else:
        print_line(f"API key {key.name} is revoked")
