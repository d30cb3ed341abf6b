"""Rules of ``<style>`` written onto elements; whatever cannot be stays as it was written, byte for byte.

Each rule gets a property of its own, whose name tells after the tool which rules came to an element. A rule that came
to none may still be for elements that only a mail reader makes (``.ExternalClass``, ``u + .body``): it stays.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from css_inline import CSSInliner

from postroad.mail.style_sheet import StyleRule, depends_on_document, read_rules

_STYLE = re.compile(r"<style\b(?P<attributes>[^>]*)>(?P<css>.*?)(?P<end></style\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_UNTOUCHED = re.compile(
    r"""\bdata-css-inline\s*=\s*["']?ignore|\bmedia\s*=\s*(?!["']?\s*(?:all|screen)\s*["'/]|(?:all|screen)\b)"""
    r"""|\btype\s*=\s*(?!["']?\s*text/css)""",
    re.IGNORECASE,
)
_DOCTYPE = re.compile(r"<!doctype\b[^>]*>", re.IGNORECASE)
# Comments, among them conditional ones, and what HTML reads as a comment (WHATWG HTML §13.2.5.41). Tags and elements
# of text alone are passed over, for what looks like a comment in them is none.
_PASSED_OVER = re.compile(
    r"<(?P<element>style|script|title|textarea)\b[^>]*>.*?(?:</(?P=element)\s*>|\Z)"
    r"|(?P<comment><!--(?:-?>|.*?(?:--!?>|\Z))|<(?:!(?!doctype\b)|\?)[^>]*(?:>|\Z))"
    r"""|</?[a-z](?:"[^"]*"|'[^']*'|[^>"'])*>""",
    re.IGNORECASE | re.DOTALL,
)
_CONDITIONS = re.compile(r"<!--(?:\[if[^\]]*\]>)?|(?:<!\[endif\])?--!?>|<!\[[^>]*>", re.IGNORECASE)
_OF_ATTRIBUTES = re.compile(r"[.#\[]")


@dataclass(frozen=True, kw_only=True)
class InlinedHtml:
    """What became of HTML. ``before`` and ``after``: what the tool was given, and what it made of it."""

    html: str
    before: str
    after: str


def inline_styles(html: str, *, prefix: str, is_dynamic: Callable[[str], bool], has_logic: Callable[[str], bool]) -> InlinedHtml | None:
    """Write the rules of style sheets onto the elements that they are for.

    Args:
        html: The document. Nothing that it links to is loaded.
        prefix: Letters that the document does not contain.
        is_dynamic: Whether a value of an attribute is known for each recipient alone.
        has_logic: Whether a style sheet's text has logic in it.

    Returns:
        The result, or None where no rule can be written onto elements.

    Raises:
        css_inline.InlineError: The tool cannot read a style sheet.
    """
    document = _Document(html, prefix, has_logic)
    if not document.rules:
        return None
    before = document.html
    after = _inliner().inline(before)
    found = document.count(after)
    in_comments = _rules_in_comments(document, found)
    dynamic = is_dynamic(html)
    ...
    return InlinedHtml(html=document.restore(after, kept), before=before, after=after)
