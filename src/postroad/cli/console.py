"""postroad console: serves the web console, and manages who signs in."""

from __future__ import annotations

import asyncio
import getpass
import logging
import socket
from typing import Annotated

import typer

from postroad.cli.options import MetricsAt, MetricsHost, MetricsPort
from postroad.cli.output import JsonOption, ask_secret, print_json, print_line, print_table
from postroad.errors import UsageError
from postroad.settings import AccessRole, Settings

app = typer.Typer(
    help="The web console, and who signs in to it. Without a command: serve it until SIGTERM.",
    invoke_without_command=True,
)
user_app = typer.Typer(help="Users who sign in with a password.", no_args_is_help=True)
app.add_typer(user_app, name="user")

RoleOption = Annotated[AccessRole, typer.Option(help="What the user may do.")]
MAX_NAME_CHARACTERS = 200

log = logging.getLogger(__name__)


@app.callback()
def console(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen at; unset: the setting console.host.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen at, 0: a free one; unset: console.port.", min=0, max=65535)
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Serve the web console until SIGTERM: what is sent, what became of it, and what needs a person.

    It listens on this machine only. On another address it needs console.url and a way to sign in: users with
    passwords, OpenID Connect, or a proxy's header. `postroad console link` prints a link that signs in once.
    """
    if context.invoked_subcommand is not None:
        if host is not None or port is not None or metrics_port is not None:
            raise UsageError("--host, --port and --metrics-port belong to `postroad console` without a command")
        return
    from postroad.cli.signals import start_logging

    settings = Settings.load()
    start_logging(settings)
    port = settings.console.port if port is None else port
    asyncio.run(_serve(settings, host or settings.console.host, port, MetricsAt(metrics_host, metrics_port)))


async def _serve(settings: Settings, host: str, port: int, metrics: MetricsAt) -> None:
    from postroad.app.context import Role
    from postroad.app.readiness import WITHOUT_REDIS
    from postroad.cli.role_process import open_role
    from postroad.cli.signals import STOP_WITHIN_S, stop_on_signals
    from postroad.console.app import create_app
    from postroad.console.serve import connection_limiter, open_parts, require_sign_in
    from postroad.delivery.job import SEND_QUEUE
    from postroad.web.serve import serving

    stop = stop_on_signals(STOP_WITHIN_S)
    settings = settings.model_copy(update={"console": settings.console.model_copy(update={"host": host})})
    async with (
        open_role(settings, Role.CONSOLE, SEND_QUEUE, metrics, stop, required=WITHOUT_REDIS) as process,
        open_parts(process.context) as parts,
    ):
        await asyncio.to_thread(require_sign_in, parts.engine, settings.console, host)
        watching = asyncio.create_task(parts.findings.watch())
        try:
            limiter = connection_limiter(settings.console)
            async with serving(create_app(parts), host, port, limiter, section="console") as at:
                process.ready()
                log.info("the console listens at http://%s:%d", f"[{host}]" if ":" in host else host, at)
                await stop.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    log.info("the console stopped")


@app.command("link")
def link(
    name: Annotated[str, typer.Option(help="Name of the user, for the audit log.")],
    role: RoleOption = AccessRole.VIEW,
    as_json: JsonOption = False,
) -> None:
    """Print a link that signs one user in, once. Keep it secret like a password.

    It expires after console.link_ms. Opening it shows a button; the button uses it up.
    """
    from postroad.app.context import AppContext
    from postroad.cli.context import with_context
    from postroad.console.links import MadeLink, make_sign_in_link
    from postroad.store.audit import Actor

    user = _user_name(name)

    async def work(context: AppContext) -> MadeLink:
        actor = Actor(name=getpass.getuser(), origin=socket.gethostname())
        settings, now = context.settings.console, context.clock.now()
        return await asyncio.to_thread(make_sign_in_link, context.engine, settings, user, role, actor=actor, now=now)

    made = with_context(work)
    if as_json:
        print_json({"url": made.url, "user": user, "role": role.value, "expires_at": made.expires_at})
    else:
        print_line(made.url)


@user_app.command("add")
def add_user(
    name: Annotated[str, typer.Argument(help="Name of the user.")],
    role: RoleOption = AccessRole.VIEW,
    as_json: JsonOption = False,
) -> None:
    """Add a user, or set the password and the role of one, whose sessions then end.

    The password is asked for on the terminal; elsewhere it is the first line of standard input.
    """
    from postroad.app.context import AppContext
    from postroad.cli.context import with_context
    from postroad.console.passwords import Passwords
    from postroad.store.audit import Actor, record_act
    from postroad.store.console_access import save_user
    from postroad.store.engine import write

    user = _user_name(name)
    password = ask_secret("Password", again="Repeat the password")

    async def work(context: AppContext) -> bool:
        def save() -> bool:
            hashed, now = Passwords().hash(password), context.clock.now()
            with write(context.engine) as connection:
                new = save_user(connection, user, role, hashed, now)
                actor = Actor(name=getpass.getuser(), origin=socket.gethostname())
                action = "user.add" if new else "user.change"
                record_act(connection, actor, action, user, 1, at=now, note=f"role {role}")
                return new

        return await asyncio.to_thread(save)

    new = with_context(work)
    if as_json:
        print_json({"user": user, "role": role.value, "new": new})
    else:
        print_line(f"{user} is {'added' if new else 'changed'}, with the role {role.value}")


@user_app.command("list")
def list_users(as_json: JsonOption = False) -> None:
    """List the users who sign in with a password."""
    from collections.abc import Sequence

    from postroad.app.context import AppContext
    from postroad.cli.context import with_context
    from postroad.store.console_access import ConsoleUser, users
    from postroad.store.engine import read

    async def work(context: AppContext) -> Sequence[ConsoleUser]:
        def listed() -> Sequence[ConsoleUser]:
            with read(context.engine) as connection:
                return users(connection)

        return await asyncio.to_thread(listed)

    rows = with_context(work)
    if as_json:
        print_json(
            [
                {"user": row.name, "role": row.role.value, "created_at": row.created_at, "changed_at": row.changed_at}
                for row in rows
            ]
        )
    else:
        columns = ["user", "role", "since", "changed"]
        print_table("users", columns, [[row.name, row.role.value, row.created_at, row.changed_at] for row in rows])


@user_app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Name of the user.")],
    as_json: JsonOption = False,
) -> None:
    """Remove a user, and end the user's sessions."""
    from postroad.app.context import AppContext
    from postroad.cli.context import with_context
    from postroad.errors import unknown_name
    from postroad.store.audit import Actor, record_act
    from postroad.store.console_access import remove_user, users
    from postroad.store.engine import write

    user = _user_name(name)

    async def work(context: AppContext) -> None:
        def removed() -> None:
            with write(context.engine) as connection:
                if not remove_user(connection, user):
                    known = [row.name for row in users(connection)]
                    raise unknown_name("user", user, known, listed_by="postroad console user list")
                actor = Actor(name=getpass.getuser(), origin=socket.gethostname())
                record_act(connection, actor, "user.remove", user, 1, at=context.clock.now())

        await asyncio.to_thread(removed)

    with_context(work)
    if as_json:
        print_json({"user": user, "removed": True})
    else:
        print_line(f"{user} is removed")


def _user_name(text: str) -> str:
    name = text.strip()
    if not name or len(name) > MAX_NAME_CHARACTERS or not name.isprintable() or "/" in name:
        raise UsageError(
            "the user's name is not valid",
            remedy=f"Write 1 to {MAX_NAME_CHARACTERS} printable characters without a slash, such as an address.",
        )
    return name
