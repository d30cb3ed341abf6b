"""postroad explain: the whole story of one person's mail, and what holds what has not left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, Styled, print_json, print_line, print_table, print_warning
from postroad.printable import counted

if TYPE_CHECKING:
    from postroad.explain.charge import Charge
    from postroad.explain.story import EnrolmentStory, MessageStory, Story

SHOWN_MESSAGES = 5
"""Ended messages that are described one by one, the newest ones. The table of events has all."""


def explain(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS", help="Address of a person; or a Message-ID of one of our messages, or the id of a touch."
        ),
    ],
    campaign: Annotated[str | None, typer.Option(help="Only messages of this campaign.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Explain a person's mail: what waits and what holds it, where the time went, and what happened.

    The first line is the answer. For each message that has not left it lists everything that holds it, since when, the
    reply and the rule that caused it, and the earliest time at which it may leave, in the recipient's time zone and in
    UTC. Of several holds, the one that ends last is listed first. The history has imports, suppressions, attempts with
    the receivers' words, returned mail, replies and unsubscribes.

    If the queue is unreachable, the ledger's part is shown, and a warning says so.

    Example: postroad explain ada@example.com --campaign spring
    """
    from postroad.explain.story import tell_story

    story = with_context(lambda context: tell_story(context, subject, campaign=campaign))
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(story))
        return
    _print_story(story)


def _print_story(story: Story) -> None:
    if story.queue_error is not None:
        print_warning(f"The queue cannot be reached, and only the ledger was asked: {story.queue_error}")
    waits = any(message.waits or message.undecided for message in story.messages)
    print_line(Styled(f"{story.address}: {story.answer}", "bold yellow" if waits or story.suppressed else "bold green"))
    if not story.recipient:
        print_line("The address is not a recipient's. Only a suppression of it, of its domain or of its hash is known.")
    open_messages = [message for message in story.messages if message.waits or message.undecided]
    ended = [message for message in story.messages if message not in open_messages]
    for message in (*open_messages, *ended[:SHOWN_MESSAGES]):
        _print_message(message)
    for enrolment in story.enrolments:
        _print_enrolment(enrolment)
    if story.deleted:
        print_line(f"Messages of these campaigns were deleted after their retention: {', '.join(story.deleted)}.")
    if story.more:
        shown = counted(len(story.messages), "message is", "messages are")
        print_line(f"Only the newest {shown} shown. --campaign selects others.")
    print_line("")
    print_table(
        "history",
        ["time", "event", "message", "what"],
        [
            [entry.at, entry.kind.value, entry.touch, f"{entry.words}{f' [{entry.rule}]' if entry.rule else ''}"]
            for entry in story.timeline
        ],
    )


def _print_enrolment(enrolment: EnrolmentStory) -> None:
    print_line("")
    entry = f" {enrolment.entry}" if enrolment.entry > 1 else ""
    heading = Styled(f"enrolment{entry} in campaign {enrolment.campaign}", "bold")
    why = f" ({enrolment.why})" if enrolment.why else ""
    due = f", looked at {enrolment.due_at:%Y-%m-%d %H:%M:%S} UTC" if enrolment.due_at is not None else ""
    at_step = f"at step {enrolment.step} since {enrolment.since:%Y-%m-%d %H:%M:%S} UTC"
    print_line(heading, f": {enrolment.state}{why} {at_step}{due}")


def _print_message(message: MessageStory) -> None:
    due = f"{message.due_at.astimezone(ZoneInfo(message.zone)):%Y-%m-%d %H:%M:%S} in {message.zone}"
    variant = f", variant {message.variant}" if message.variant else ""
    heading = f"message {message.touch}, campaign {message.campaign}, step {message.step}{variant}"
    print_line("")
    print_line(Styled(heading, "bold"), f": {message.state}, due {due}")
    if not message.waits:
        for sentence in message.words:
            print_line(f"  {sentence}")
    for hold in message.holds:
        since = f"{hold.since:%Y-%m-%d %H:%M:%S} UTC" if hold.since is not None else ""
        print_line(f"  {hold.words}{f' Since {since}.' if since not in hold.words else ''}")
        for sentence in filter(None, (hold.detail, hold.remedy)):
            print_line(f"    {sentence}")
    if message.waits and not message.holds:
        print_line("  Nothing holds it: it goes when its turn comes.")
    if message.earliest_at is not None:
        local = f"{message.earliest_at.astimezone(ZoneInfo(message.zone)):%Y-%m-%d %H:%M:%S} in {message.zone}"
        print_line(f"  Earliest: {local}, {message.earliest_at:%Y-%m-%d %H:%M:%S} UTC.")
    elif message.waits:
        print_line("  Earliest: not known, because a hold has no known end.")
    if message.delay_ms:
        print_line(f"  Delay {duration(message.delay_ms)}: {charges_in_words(message.delays)}.")


def charges_in_words(charges: Sequence[Charge]) -> str:
    """Return where time went, the longest first."""
    return "; ".join(f"{duration(one.ms)} {one.label}" for one in charges)


def duration(ms: int) -> str:
    """Return a duration in words, as in `1 d 2 h 3 min`; below a minute in seconds."""
    if ms < 60_000:
        return f"{ms / 1000:g} s"
    minutes = timedelta(milliseconds=ms) // timedelta(minutes=1)
    days, hours = divmod(minutes // 60, 24)
    parts = ((days, "d"), (hours, "h"), (minutes % 60, "min"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)
