"""postroad db: the database's schema."""

from __future__ import annotations

import typer

from postroad.app.context import database_url
from postroad.cli.output import JsonOption, print_json, print_line
from postroad.settings import Settings
from postroad.store import migrate
from postroad.store.engine import open_engine

app = typer.Typer(help="The database: its schema and its migrations.", no_args_is_help=True)


@app.command("upgrade")
def upgrade(as_json: JsonOption = False) -> None:
    """Bring the schema to this version's. Harmless when it is there; run it before the workers of a new version."""
    engine = open_engine(database_url(Settings.load()))
    try:
        revision = migrate.upgrade(engine)
        where = engine.url.render_as_string(hide_password=True)
    finally:
        engine.dispose()
    if as_json:
        print_json({"revision": revision, "database": where})
    else:
        print_line(f"{where} is at revision {revision}")


@app.command("status")
def status(as_json: JsonOption = False) -> None:
    """Show at which revision the schema is, and at which it should be."""
    engine = open_engine(database_url(Settings.load()))
    try:
        current, newest = migrate.current_revision(engine), migrate.newest_revision()
    finally:
        engine.dispose()
    if as_json:
        print_json({"revision": current, "newest": newest})
    else:
        print_line(f"at {current or 'none'}, newest {newest}")
