"""postroad segment: how many members of an audience meet a condition, who they are, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, TypeVar

import sqlalchemy as sa
import typer

from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, Styled, print_json, print_line, print_table, progress_bars
from postroad.cli.row_limit import MAX_NUMBER, LimitOption
from postroad.errors import DataError, StateError, UsageError
from postroad.printable import counted

if TYPE_CHECKING:
    from postroad.app.context import AppContext
    from postroad.campaign.segment import Segment, SegmentCount, SegmentRow
    from postroad.segment.explain import ExplainedClause

T = TypeVar("T")

app = typer.Typer(
    help="Segments: members of an audience who meet a condition. docs/reference/conditions.md says how to write one.",
    no_args_is_help=True,
)
AudienceOption = Annotated[str | None, typer.Option(help="The audience; unset: that of --campaign.")]
WhereOption = Annotated[
    str | None,
    typer.Option(help="The condition, as in \"plan = 'trial' and number(seats) >= 5\"; unset: that of --campaign."),
]
CampaignOption = Annotated[str | None, typer.Option(help="A campaign, whose audience and condition are used.")]


@dataclass(frozen=True)
class _Chosen:
    """The segment that the options name."""

    audience: str
    segment: Segment

    @property
    def where(self) -> str | None:
        return self.segment.condition.text if self.segment.condition is not None else None


def _choose(context: AppContext, audience: str | None, where: str | None, campaign: str | None) -> _Chosen:
    """Return the segment that the options name. Raises UsageError, or StateError for a name that does not exist."""
    from postroad.campaign.segment import Segment
    from postroad.campaign.segment_fields import known_fields, require_segment
    from postroad.segment.errors import ConditionError
    from postroad.segment.parse import parse
    from postroad.store.campaign import find_campaign
    from postroad.store.engine import read
    from postroad.store.recipient import audience_name, find_audience

    if audience is None and campaign is None:
        raise UsageError("no audience is named", remedy="Name one: --audience NAME --where …, or --campaign NAME.")
    now, condition = context.clock.now(), None
    with read(context.engine) as connection:
        if campaign is not None:
            found = find_campaign(connection, campaign)
            condition = Segment.of(found, now).condition
            own = audience_name(connection, found.audience_id)
            if audience not in (None, own):
                raise UsageError(f"campaign {campaign} has the audience {own}", remedy="Name one of the two options.")
            audience = own
        assert audience is not None  # noqa: S101  (one of the two is named)
        audience_id = find_audience(connection, audience)
        if where is not None:
            try:
                condition = parse(where, known_fields(connection, audience, context.settings.field_types(audience)))
                require_segment(connection, condition)
            except ConditionError as error:
                raise UsageError(f"--where, column {error.column}: {error.message}", remedy=error.remedy) from None
    return _Chosen(audience, Segment(audience_id=audience_id, condition=condition, now=now))


def _run(work: Callable[[AppContext], T]) -> T:
    async def main(context: AppContext) -> T:
        return await asyncio.to_thread(work, context)

    return with_context(main)


@app.command("count")
def count(
    audience: AudienceOption = None,
    where: WhereOption = None,
    campaign: CampaignOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the members who meet a condition, and those who lack a field that it names."""
    from postroad.campaign.segment import count_members, count_segment

    def work(context: AppContext) -> tuple[_Chosen, SegmentCount]:
        chosen = _choose(context, audience, where, campaign)
        total = count_members(context.engine, chosen.segment.audience_id)
        with progress_bars(quiet=as_json) as report:
            done = count_segment(
                context.engine, chosen.segment, progress=lambda members: report("counting", members, total)
            )
        return chosen, done

    chosen, done = _run(work)
    if as_json:
        print_json(
            {
                "audience": chosen.audience,
                "where": chosen.where,
                "members": done.members,
                "matching": done.matching,
                "suppressed": done.suppressed,
                "missing": done.missing,
            }
        )
        return
    print_line(f"{done.matching:,} of {counted(done.members, 'member')} of {chosen.audience} match")
    if done.suppressed:
        print_line(f"{done.suppressed:,} of them are suppressed, and get nothing")
    for name, missing in done.missing.items():
        if missing:
            print_line(f"{missing:,} of {counted(done.members, 'member')} have no value in {name}")


@app.command("show")
def show(
    audience: AudienceOption = None,
    where: WhereOption = None,
    campaign: CampaignOption = None,
    after: Annotated[int, typer.Option(help="Id of the last recipient of the page before.", min=0, max=MAX_NUMBER)] = 0,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List the members who meet a condition, in the order of their ids."""
    from postroad.campaign.segment import segment_pages

    def work(context: AppContext) -> tuple[_Chosen, list[SegmentRow]]:
        chosen = _choose(context, audience, where, campaign)
        pages = segment_pages(context.engine, chosen.segment, after=after)
        return chosen, list(islice((row for page in pages for row in page if row.met), limit))

    chosen, rows = _run(work)
    if as_json:
        keys = ("id", "address", "time_zone", "suppressed")
        print_json(
            [
                dict(zip(keys, (row.recipient_id, row.address, row.time_zone, row.suppressed), strict=True))
                for row in rows
            ]
        )
        return
    table = ([row.recipient_id, row.address, row.time_zone or "", row.suppressed] for row in rows)
    print_table(f"segment of {chosen.audience}", ["id", "address", "time zone", "suppressed"], table)
    if len(rows) == limit:
        print_line(f"--after {rows[-1].recipient_id} shows the next ones.")


@app.command("explain")
def explain_(
    address: Annotated[str, typer.Argument(help="Address of the recipient.")],
    audience: AudienceOption = None,
    where: WhereOption = None,
    campaign: CampaignOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a recipient meets a condition or does not, clause by clause, with the values that decided it."""
    from postroad.mail.address import normalise_address

    try:
        recipient = normalise_address(address)
    except DataError as error:
        raise UsageError(f"{address!r} is not an address: {error.message}") from None

    def work(context: AppContext) -> tuple[_Chosen, bool, list[ExplainedClause], bool]:
        chosen = _choose(context, audience, where, campaign)
        return chosen, *_explain(context, chosen, recipient)

    chosen, member, clauses, meets = _run(work)
    if as_json:
        print_json(
            {
                "address": recipient,
                "audience": chosen.audience,
                "where": chosen.where,
                "member": member,
                "in": member and meets,
                "clauses": [clause._asdict() for clause in clauses],
            }
        )
        return
    state = Styled("in", "bold green") if member and meets else Styled("out", "bold red")
    print_line(state, f" {recipient}, {'a' if member else 'not a'} member of {chosen.audience}")
    for clause in clauses:
        truth = Styled("yes", "green") if clause.holds else Styled("no ", "red")
        print_line("  " * (clause.depth + 1), truth, f" {clause.text}", f"   ({clause.seen})" if clause.seen else "")


def _explain(context: AppContext, chosen: _Chosen, address: str) -> tuple[bool, list[ExplainedClause], bool]:
    """Return whether a recipient is a member, the clauses, and whether the condition is true for the recipient."""
    from postroad.segment.explain import explain
    from postroad.segment.holds import holds
    from postroad.segment.load import load_person
    from postroad.store.engine import read

    segment = chosen.segment
    with read(context.engine) as connection:
        recipient_id = connection.execute(
            sa.text("SELECT id FROM recipient WHERE address = :address"), {"address": address}
        ).scalar()
        if recipient_id is None:
            raise StateError(
                f"no recipient has the address {address}",
                remedy=f"`postroad audience import {chosen.audience} FILE` imports recipients.",
            )
        person = load_person(connection, recipient_id, segment.now, audience_id=segment.audience_id)
    member = chosen.audience in person.memberships
    if segment.condition is None:
        return member, [], True
    return member, explain(segment.condition, person), holds(segment.condition, person)
