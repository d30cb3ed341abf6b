"""The findings of a preflight: each has a code, a level, its place, and a remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

_MAX_LINES: Final = 20


class Level(StrEnum):
    """Severity of a finding: a fail prevents the launch."""

    FAIL = "fail"
    WARN = "warn"
    INFO = "info"


class PreflightCode(Enum):
    """Every finding of a preflight: docs/reference/preflight-findings.md lists them."""

    AUDIENCE_EMPTY = "audience.empty", Level.FAIL, "There is no recipient."
    AUDIENCE_INTERRUPTED = "audience.interrupted", Level.FAIL, "Recipients of an unfinished import would be missing."
    SEGMENT_EMPTY = "segment.empty", Level.FAIL, "No member of the audience meets the condition."
    SEGMENT_MISSING = "segment.missing", Level.WARN, "Comparisons with a missing value are false."
    JOURNEY_WAYS = "journey.ways", Level.INFO, "The fields of today decide; later ones may decide otherwise."
    JOURNEY_NO_DATE = "journey.no-date", Level.WARN, "They get none of the emails after that wait."
    FILE_UNREADABLE = "file.unreadable", Level.FAIL, "The launch imports the file first, and would stop."
    FILE_NO_ROW = "file.no-row", Level.FAIL, "After the import there would still be no recipient."
    FILE_REFUSED = "file.refused", Level.WARN, "These rows get no mail."
    SENDER_NO_ROUTE = "sender.no-route", Level.FAIL, "Messages without a route cannot be sent."
    SENDER_NO_DKIM = "sender.no-dkim", Level.WARN, "Large receivers reject bulk mail without a signature."
    URL_UNSET = "public-url.unset", Level.FAIL, "The unsubscribe links would lead nowhere."
    URL_HTTP = "public-url.http", Level.WARN, "Receivers offer one-click unsubscribe for https only (RFC 8058)."
    FREQUENCY_UNKNOWN = "frequency.unknown", Level.FAIL, "The settings have no such cap."
    FREQUENCY_OVER = "frequency.over", Level.WARN, "Their messages are sent later, or skipped."
    ROLLOUT_SMALL = "rollout.small-share", Level.WARN, "The next share is not let go without a person."
    HOLIDAYS_NO_DAY = "holidays.no-day", Level.FAIL, "No message could be sent within a year."
    HOLIDAYS_NO_COUNTRY = "holidays.no-country", Level.WARN, "Their public holidays are not known."
    HOLIDAYS_WRONG_COUNTRY = "holidays.wrong-country", Level.WARN, "The country of their time zone applies instead."
    DNS_UNCHECKED = "dns.unchecked", Level.WARN, "Nothing is known about the domain of the sender."
    DNS_FAILING = (
        "dns.failing",
        Level.WARN,
        "Receivers reject mail of such a domain. `dns_health.preflight` sets the level.",
    )
    DNS_HELD = "dns.held", Level.WARN, "The mail waits until the DNS is fixed."
    TEMPLATE_INVALID = "template.invalid", Level.FAIL, "The message cannot be made."
    BODY_NO_UNSUBSCRIBE = "body.no-unsubscribe", Level.FAIL, "Laws and large receivers require the link."
    BODY_NO_ADDRESS = "body.no-address", Level.FAIL, "Laws require the postal address of the sender."
    RENDER_FAILS = "render.fails", Level.FAIL, "These recipients would get no message."
    RENDER_RESERVED = "render.reserved", Level.WARN, "The value of the column is not shown."
    RENDER_SLOW = "render.slow", Level.WARN, "The recipients that were not tried may have errors."
    MERGE_EMPTY = "merge.empty", Level.WARN, "More than half of the recipients see the default value."
    SIZE_CLIPPED = "size.clipped", Level.WARN, "Gmail clips it, and the unsubscribe link at its end is not shown."
    IMAGE_NO_ALT = "image.no-alt", Level.WARN, "Readers without images see a file name or nothing."
    LINK_HTTP = "link.http", Level.WARN, "Mail programs and browsers warn about links without https."
    LINK_UNUSABLE = "link.unusable", Level.WARN, "The link leads nowhere in a mail program."
    LINK_OTHER_HOST = "link.other-host", Level.WARN, "A text that shows another host is a sign of phishing to filters."
    LINK_DEAD = "link.dead", Level.WARN, "Recipients who follow the link see an error."
    LINK_REDIRECTS = (
        "link.redirects",
        Level.WARN,
        "The reputation of the other host counts, and it may change the target.",
    )
    LINK_UNCHECKED = "link.unchecked", Level.INFO, "The check has no result, so the link may be dead."
    TEXT_DIFFERS = "text.differs", Level.WARN, "Filters compare the parts, and some recipients see the text only."
    TEXT_EMPTY = "text.empty", Level.WARN, "Filters distrust a message of images only, and some recipients see nothing."
    VARIANTS_SMALL = "variants.small", Level.WARN, "No variant can win, and the others wait for nothing."
    SUBJECT_EMPTY = "subject.empty", Level.WARN, "Filters distrust a message without a subject."
    SUBJECT_LONG = "subject.long", Level.WARN, "Mail programs show the beginning only."
    SUBJECT_REPLY = "subject.reply", Level.WARN, "It claims a conversation that there was not."
    SUBJECT_CAPITALS = "subject.capitals", Level.WARN, "Filters and readers take capitals for spam."
    SUBJECT_EMOJI = "subject.emoji", Level.INFO, "Some programs show them differently."
    CONTENT_UNREAD = "content.unread", Level.WARN, "Its images, links and words were not checked."
    SPAM_SCORE = "spam.score", Level.WARN, "Receivers that use rspamd may file it as spam."
    SPAM_OK = "spam.ok", Level.INFO, "The score of rspamd, for comparison."
    SPAM_UNCHECKED = "spam.unchecked", Level.WARN, "There is no score. It does not prevent the launch."

    def __init__(self, word: str, level: Level, why: str) -> None:
        self.word = word
        self.level = level
        self.why = why


@dataclass(frozen=True, kw_only=True)
class PreflightFinding:
    """One problem and its remedy.

    Attributes:
        code: Its word, see `PreflightCode`.
        level: Its severity.
        what: The problem, with the place.
        remedy: What to do.
        step: The step, unset if the campaign as a whole is affected.
        variant: The variant of the step, unset if it has none.
        place: Part of the step and lines of its template, as far as they are known.
        recipients: Number of affected recipients, unset if all of them are affected.
        examples: Some of their addresses.
    """

    code: str
    level: Level
    what: str
    remedy: str
    step: str | None = None
    place: str | None = None
    recipients: int | None = None
    examples: tuple[str, ...] = ()
    variant: str | None = None


def campaign_finding(
    code: PreflightCode, what: str, remedy: str, *, level: Level | None = None, recipients: int | None = None
) -> PreflightFinding:
    """Return a finding about a campaign. ``level``: its level, if it is not that of the code."""
    return PreflightFinding(code=code.word, level=level or code.level, what=what, remedy=remedy, recipients=recipients)


def name_lines(numbers: Iterable[int | None]) -> str:
    """Return lines in words, such as ``lines 3, 7``. It is empty if no line is known: None or 0."""
    lines = list(dict.fromkeys(str(number) for number in numbers if number))
    more = ", …" if len(lines) > _MAX_LINES else ""
    return f"line{'s' if len(lines) > 1 else ''} {', '.join(lines[:_MAX_LINES])}{more}" if lines else ""


def step_finding(
    code: PreflightCode, where: str, what: str, remedy: str, *, part: str = "", lines: str = ""
) -> PreflightFinding:
    """Return a finding about a step.

    Args:
        code: Its code.
        where: The campaign and the step, as errors name them: ``campaign spring, step hello``.
        what: The problem.
        remedy: What to do.
        part: Part of the message: subject, text or html.
        lines: The lines of its template, such as ``line 3``.

    Returns:
        The finding.
    """
    place = ", ".join(filter(None, (part, lines))) or None
    step, variant = step_and_variant(where)
    return PreflightFinding(
        code=code.word,
        level=code.level,
        what=f"{where}{f', {place}' if place else ''}: {what}",
        remedy=remedy,
        step=step,
        place=place,
        variant=variant,
    )


def step_and_variant(where: str) -> tuple[str | None, str | None]:
    """Return the step and the variant that the name of a message contains: ``campaign spring, step hello``."""
    step, _, variant = where.rpartition("step ")[2].partition(", variant ")
    return step or None, variant or None
