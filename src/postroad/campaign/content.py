"""Checks the content of a step: size, images, links, words and subject.

Templates are read as written, so that findings have lines and every branch of the logic is checked. What depends on
merge fields is checked in messages for some recipients of the audience: see `StepTrial.samples`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from postroad.campaign.finding import (
    Level,
    PreflightCode,
    PreflightFinding,
    name_lines,
    step_and_variant,
    step_finding,
)
from postroad.campaign.links import StepLink, link_findings, links_of_text
from postroad.campaign.subject import subject_findings
from postroad.campaign.trial import StepTrial
from postroad.dns.public_address import networks
from postroad.errors import DataError
from postroad.mail.html_content import HtmlContent
from postroad.mail.html_reader import HtmlBodyReader
from postroad.mail.rendering import Rendering
from postroad.printable import counted
from postroad.settings import Settings

CLIP_BYTES: Final = 102 * 1024
"""Size of the HTML, after merge, from which Gmail clips a message."""
MIN_SHARED: Final = 0.5
"""Smallest share of the words of the shorter part that the other part has, too.

The parts of 16 mails in published test data share at least 0.95. Of two unrelated mails in it the median is 0.3, and
one pair of ten shares more than 0.5.
"""
MIN_WORDS: Final = 10
"""Parts with fewer distinct words are not compared, and a part with fewer says hardly anything."""
MUCH: Final = 50
"""Distinct words of a part that says much."""
MAX_READ: Final = 500_000
"""Characters of HTML of a step's messages after which no other one is read: about a second."""
# Scripts without blanks between words: each character counts as a word.
_WORD: Final = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]{3,}")


@dataclass(frozen=True, kw_only=True)
class AuthoredStep:
    """What the author wrote for a step, and the trial of its messages.

    Attributes:
        text: The author's template of the text. None: it is made from the HTML.
        html: The template of the HTML. None: there is no HTML.
        html_lines: Whether the author wrote it: HTML that is made from MJML has no lines.
        trial: The trial, which has ended.
    """

    text: str | None
    html: str | None
    html_lines: bool
    trial: StepTrial


@dataclass(frozen=True, kw_only=True)
class CheckedContent:
    """The findings about a step, and the links of its templates."""

    step: AuthoredStep
    findings: tuple[PreflightFinding, ...]
    links: tuple[StepLink, ...]


def check_content(step: AuthoredStep, reader: HtmlBodyReader, settings: Settings) -> CheckedContent:
    """Check the content of a step.

    Args:
        step: The step.
        reader: Reads the HTML.
        settings: The settings. Postroad's own links are not checked.

    Returns:
        The findings and links.
    """
    where, trial = step.trial.name, step.trial
    renderings = list(_renderings(trial))
    findings = [
        *subject_findings(where, [rendering.subject for _, rendering in renderings]),
        *_size_findings(where, renderings),
        *_merge_findings(trial),
    ]
    links = list(links_of_text(step.text, lines=True)) if step.text is not None else []
    rendered: list[StepLink] = []
    try:
        if step.html is not None:
            template = reader.read(step.html, template=True)
            links += _template_links(step, template)
            findings += _image_findings(step, template)
        for rendering in _within_limit(renderings):
            content = reader.read(rendering.html) if rendering.html is not None else None
            rendered += _rendered_links(rendering, content, made_text=step.text is None)
            if content is not None:
                findings += _word_findings(step, rendering.text, content)
    except DataError as error:
        remedy = "Close every element, and nest fewer of them."
        findings.append(
            step_finding(PreflightCode.CONTENT_UNREAD, where, f"it is not read: {error.message}", remedy, part="html")
        )
    own = f"{settings.public_url.rstrip('/')}/u/"
    rendered = [link for link in rendered if not link.href.startswith(own)]
    findings += link_findings(where, [*links, *rendered], networks(settings.preflight.allowed_networks))
    # Several messages have the same problem.
    distinct = {(finding.code, finding.place or finding.what): finding for finding in reversed(findings)}
    return CheckedContent(step=step, findings=tuple(reversed(distinct.values())), links=tuple(dict.fromkeys(links)))


def _renderings(trial: StepTrial) -> Iterator[tuple[str, Rendering]]:
    for address, attributes in trial.samples:
        # The trial rendered it with other values of the same kind. A filter such as `random` may decide otherwise.
        with suppress(DataError):
            yield address, trial.message.render({**attributes, **trial.message.reserved_fields(0, address)})


def _within_limit(renderings: list[tuple[str, Rendering]]) -> Iterator[Rendering]:
    """Yield messages to read: the longest one, and others until the HTML of all is too long."""
    length = 0
    for _, rendering in [*renderings[-1:], *renderings[:-1]]:
        yield rendering
        length += len(rendering.html or rendering.text)
        if length > MAX_READ:
            return


def _rendered_links(rendering: Rendering, content: HtmlContent | None, *, made_text: bool) -> Iterator[StepLink]:
    if content is not None:
        for link in content.links:
            yield StepLink(href=link.href, shown=link.shown, part="html")
    if content is None or not made_text:  # A text that is made from the HTML has the same links.
        yield from links_of_text(rendering.text, lines=False)


def _size_findings(where: str, renderings: list[tuple[str, Rendering]]) -> Iterator[PreflightFinding]:
    sizes = [
        (len(html.encode(errors="replace")) + html.count("\n") - html.count("\r\n"), address)  # Lines end with CRLF.
        for address, (_, _, html) in renderings
        if html is not None
    ]
    size, address = max(sizes, default=(0, ""))
    if size > CLIP_BYTES:
        yield step_finding(
            PreflightCode.SIZE_CLIPPED,
            where,
            f"it has {size / 1024:.0f} kB for {address}, and Gmail clips a message after {CLIP_BYTES // 1024} kB",
            "Shorten it: remove comments, blanks, styles and repeated elements, or move content to a web page.",
            part="html",
        )


def _merge_findings(trial: StepTrial) -> Iterator[PreflightFinding]:
    for name, recipients in sorted(trial.missing.items()):
        if 2 * recipients > trial.rendered:
            shown = name in trial.shown_fields
            share = f"{recipients:,} of {counted(trial.rendered, 'recipient')} ({recipients / trial.rendered:.0%})"
            step, variant = step_and_variant(trial.name)
            yield PreflightFinding(
                code=PreflightCode.MERGE_EMPTY.word,
                level=PreflightCode.MERGE_EMPTY.level if shown else Level.INFO,
                what=f"{trial.name}: {share} have no {{{{ {name} }}}}",
                remedy="Check the name of the column, or write the sentence without the field."
                if shown
                else "No action is required if the template handles both cases.",
                step=step,
                recipients=recipients,
                variant=variant,
            )


def _template_links(step: AuthoredStep, content: HtmlContent) -> Iterator[StepLink]:
    for link in content.links:
        line = link.line if step.html_lines else 0
        yield StepLink(href=link.href, shown=link.shown, part="html", line=line)


def _image_findings(step: AuthoredStep, content: HtmlContent) -> Iterator[PreflightFinding]:
    if content.no_alt:
        yield step_finding(
            PreflightCode.IMAGE_NO_ALT,
            step.trial.name,
            f"{content.without_alt:,} of {counted(content.images, 'image has', 'images have')} no alternative text",
            'Describe each image: alt="Our office". A decoration has an empty text: alt="".',
            part="html",
            lines=name_lines(content.no_alt) if step.html_lines else "",
        )


def words(text: str) -> set[str]:
    """Return the distinct words of a text, without addresses and numbers."""
    tokens = (token for token in text.casefold().split() if not _is_address(token))
    return {word for token in tokens for word in _WORD.findall(token)}


def _is_address(token: str) -> bool:
    return "://" in token or "@" in token or token.startswith(("www.", "(www."))


def shared_words(text: set[str], html: set[str]) -> float:
    """Return the share of the words of the shorter part that the other part has, too: 0 to 1."""
    return len(text & html) / max(min(len(text), len(html)), 1)


def _word_findings(step: AuthoredStep, text: str, content: HtmlContent) -> Iterator[PreflightFinding]:
    sender = step.trial.message.sender
    own = words(f"{sender.postal_address} {sender.display_name}")
    of_text, of_html, where = words(text) - own, words(content.text) - own, step.trial.name
    if content.images and len(of_html) < MIN_WORDS:
        what = f"there are {content.images} images and {len(of_html)} different words"
        remedy = "Write the message as text. Images may add to it."
        yield step_finding(PreflightCode.TEXT_EMPTY, where, what, remedy, part="html")
    elif len(of_html) >= MUCH and len(of_text) < MIN_WORDS:
        what = f"it has {len(of_text)} different words, and the HTML has {len(of_html)}"
        remedy = "Write the message as text, too, or remove `text` from the step: then the text is made from the HTML."
        yield step_finding(PreflightCode.TEXT_EMPTY, where, what, remedy, part="text")
    elif min(len(of_text), len(of_html)) >= MIN_WORDS and (share := shared_words(of_text, of_html)) < MIN_SHARED:
        what = f"it says something else than the HTML: only {share:.0%} of the words are in both parts"
        remedy = "Write the same in both parts, or remove `text` from the step: then the text is made from the HTML."
        yield step_finding(PreflightCode.TEXT_DIFFERS, where, what, remedy, part="text")
