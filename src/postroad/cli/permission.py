"""postroad permission: record that a recipient asked for mail, and prove it."""

from __future__ import annotations

import asyncio
import getpass
from typing import Annotated

import typer

from postroad.app.consents import (
    ConsentProof,
    GivenConsent,
    RecordedConsents,
    prove,
    record_given,
)
from postroad.app.context import AppContext
from postroad.app.message_order import FieldError
from postroad.campaign.event_file import EventError, event_time
from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_line, print_table
from postroad.errors import UsageError
from postroad.printable import counted
from postroad.store.consent_page import ConsentRow
from postroad.store.engine import read
from postroad.store.recipient import find_audience

app = typer.Typer(
    help="The evidence that recipients asked for mail: record a consent, and prove one.", no_args_is_help=True
)


@app.command("record")
def record(
    address: Annotated[str, typer.Argument(help="Address of the recipient.")],
    audience: Annotated[str, typer.Argument(help="The audience for which the recipient asked for mail.")],
    source: Annotated[
        str, typer.Option("--from", help="Where the recipient asked: the URL of a form, an event, a contract.")
    ],
    at: Annotated[
        str,
        typer.Option(help="When the recipient asked, as in 2026-05-31T09:30:00+02:00, default zone UTC; unset: now."),
    ] = "",
    ip: Annotated[str, typer.Option(help="IP address from which the recipient asked.")] = "",
    wording: Annotated[str, typer.Option(help="The text to which the recipient agreed.")] = "",
    confirmation: Annotated[
        str, typer.Option(help="How the address was confirmed, such as the Message-ID of a mail with a link.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Record that a recipient asked for mail to an audience.

    It is the evidence only: it adds no member to the audience, and lifts no suppression. The same recipient, audience,
    time and source are recorded once.
    """

    async def work(context: AppContext) -> RecordedConsents:
        try:
            given_at = event_time(at, context.clock.now())
        except EventError as error:
            raise UsageError(f"--at: {error.reason}") from None
        given = GivenConsent(
            address=address,
            audience=audience,
            given_at=given_at,
            source=source,
            ip=ip,
            wording=wording,
            confirmation=confirmation,
        )

        def keep() -> RecordedConsents:
            with read(context.engine) as connection:
                find_audience(connection, audience)
            return record_given(context, [given], by=getpass.getuser())

        return await asyncio.to_thread(keep)

    done = with_context(work)
    for fault in done.faults:
        option = {"given_at": "--at", "source": "--from", "address": "ADDRESS"}.get(fault.field, f"--{fault.field}")
        raise UsageError(
            f"{option}: {fault.message}", remedy="`postroad permission record --help` shows how it is used."
        )
    if as_json:
        print_json({"recorded": done.recorded, "known": done.known})
    elif done.recorded:
        print_line(f"the consent of {address} to {audience} is recorded")
    else:
        print_line(f"the consent of {address} to {audience} was recorded before")


@app.command("prove")
def prove_(
    address: Annotated[str, typer.Argument(help="Address of the recipient.")], as_json: JsonOption = False
) -> None:
    """Show what proves that a recipient asked for mail: consents, and imports with file and line.

    Suppressions that hold mail to the address are shown, too: they decide whether it is sent.
    """

    async def work(context: AppContext) -> ConsentProof:
        try:
            return await asyncio.to_thread(prove, context, address)
        except FieldError as error:
            raise UsageError(error.message, remedy="Check the spelling of the address.") from None

    proof = with_context(work)
    if as_json:
        print_json(
            {
                "address": proof.address,
                "consents": [_fields(row) for row in proof.consents],
                "suppressions": proof.suppressions,
            }
        )
        return
    columns = ["audience", "asked", "from", "line", "ip", "confirmation", "wording", "recorded", "by"]
    print_table(f"{proof.address}: {counted(len(proof.consents), 'consent')}", columns, map(_cells, proof.consents))
    for one in proof.suppressions:
        mail = "all mail" if one.audience is None else f"mail to {one.audience}"
        print_line(f"No mail is sent: {one.reason.value} of {mail} since {one.since:%Y-%m-%d %H:%M:%S} UTC.")


def _cells(row: ConsentRow) -> list[object]:
    return [
        row.audience,
        row.given_at,
        row.source,
        row.line,
        row.ip,
        row.confirmation,
        row.wording,
        row.recorded_at,
        row.recorded_by,
    ]


def _fields(row: ConsentRow) -> dict[str, object]:
    fields = row._asdict()
    del fields["number"], fields["address"]
    return {**fields, "import": row.import_id}
