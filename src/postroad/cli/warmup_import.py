"""postroad warmup import: what mailbox providers' own pages say of our mail."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from postroad.app.context import AppContext
from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_line
from postroad.errors import UsageError
from postroad.mail.address import ascii_domain
from postroad.printable import counted
from postroad.store.reputation import ReputationSource
from postroad.warmup.identity import identities
from postroad.warmup.reputation import ReputationImport, import_file

app = typer.Typer(
    help="Read what Google Postmaster Tools or Microsoft SNDS say of our mail, from their CSV exports.",
    no_args_is_help=True,
)


class _Outcome(Struct, frozen=True, kw_only=True):
    file: str
    days: int
    new: int
    of: list[str]
    nobodys: list[str]
    """Of `of`: what no sender that warms up is known by."""


@app.command("postmaster")
def postmaster(
    file: Annotated[
        Path, typer.Argument(help="CSV with a column Date and a column Spam rate; one for Domain, or not.")
    ],
    domain: Annotated[
        str | None, typer.Option(help="Domain that the file is about, if it has no column for it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Import spam rates of a domain from Google Postmaster Tools. They count for its mail to Google.

    All of the file or nothing is kept; importing it again changes nothing.
    """
    if domain is not None:
        domain = ascii_domain(domain.strip().rstrip(".").lower())
        if "." not in domain:
            raise UsageError(f"--domain: {domain!r} is a single word, and no domain that mail is sent from")
    _show(_import(ReputationSource.POSTMASTER, file, domain), as_json)


@app.command("snds")
def snds(
    file: Annotated[Path, typer.Argument(help="CSV of “View data”, or of the automated data access.")],
    as_json: JsonOption = False,
) -> None:
    """Import complaint rates of addresses from Microsoft SNDS. They count for mail from them to Outlook.com.

    All of the file or nothing is kept; importing it again changes nothing.
    """
    _show(_import(ReputationSource.SNDS, file, None), as_json)


def _import(source: ReputationSource, file: Path, domain: str | None) -> _Outcome:
    async def work(context: AppContext) -> tuple[ReputationImport, set[str]]:
        known_as = {name for identity in identities(context.settings) for name in identity.known_as}
        now = context.clock.now()
        found = await asyncio.to_thread(import_file, context.engine, source, file, domain=domain, now=now)
        return found, known_as

    found, known_as = with_context(work)
    subjects = sorted({day.subject for day in found.days})
    nobodys = [subject for subject in subjects if subject not in known_as]
    return _Outcome(file=str(file), days=len(found.days), new=found.new, of=subjects, nobodys=nobodys)


def _show(outcome: _Outcome, as_json: bool) -> None:
    if as_json:
        print_json({name: getattr(outcome, name) for name in outcome.__struct_fields__})
        return
    said = (
        f"{outcome.file}: {counted(outcome.days, 'day')} of {', '.join(outcome.of) or 'nothing'}, {outcome.new:,} new"
    )
    print_line(said)
    if outcome.nobodys:
        print_line(
            f"No sender that warms up is known by {', '.join(outcome.nobodys)}: it is stored, but has no effect. "
            "Name a sender's addresses in public_addresses.",
        )
