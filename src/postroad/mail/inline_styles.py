"""Rules of ``<style>`` written onto elements; whatever cannot be stays as it was written, byte for byte.

Each rule gets a property of its own, whose name tells after the tool which rules came to an element. A rule that came
to none may still be for elements that only a mail reader makes (``.ExternalClass``, ``u + .body``): it stays.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from css_inline import CSSInliner

from postroad.mail.style_sheet import StyleRule, depends_on_document, read_rules, without_comments

_STYLE = re.compile(r"<style\b(?P<attributes>[^>]*)>(?P<css>.*?)(?:</style\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_UNTOUCHED = re.compile(
    r"""\bdata-css-inline\s*=\s*["']?ignore|\btype\s*=\s*(?!["']?\s*text/css)"""
    r"""|\bmedia\s*=\s*(?!["']?\s*(?:all|screen)\s*(?:["'/]|\Z))""",
    re.IGNORECASE,
)
_DOCTYPE = re.compile(r"<!doctype\b[^>]*>", re.IGNORECASE)
# Comments, and what HTML reads as one (WHATWG HTML §13.2.5.41): `<![endif]>`. Tags and elements of text alone are
# passed over, for what looks like a comment in them is none.
_COMMENT = re.compile(
    r"<(?P<element>style|script|title|textarea)\b[^>]*>.*?(?:</(?P=element)\s*>|\Z)"
    r"|(?P<comment><!--(?:-?>|.*?(?:--!?>|\Z))|<(?:!(?!doctype\b)|\?)[^>]*(?:>|\Z))"
    r"""|</?[a-z](?:"[^"]*"|'[^']*'|[^>"'])*>""",
    re.IGNORECASE | re.DOTALL,
)
_CONDITION = re.compile(r"<!--(?:\[if[^\]]*\]>)?|(?:<!\[endif\])?--!?>|<!\[[^>]*>", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Inlined:
    """HTML with its styles on its elements. ``before`` and ``after``: what the tool was given, and what it made."""

    html: str
    before: str
    after: str


def inline_styles(html: str, *, prefix: str, logic: re.Pattern[str], dynamic: bool) -> Inlined | None:
    """Write the rules of style sheets onto the elements that they are for. Nothing is loaded.

    Args:
        html: A document.
        prefix: Letters that the document does not contain.
        logic: Finds in a style sheet what makes its rules conditional.
        dynamic: Whether elements have classes that differ from recipient to recipient.

    Returns:
        The result. None where no rule can be written onto an element.

    Raises:
        css_inline.InlineError: A style sheet cannot be read.
    """
    document = _Document(prefix=prefix, logic=logic)
    before = document.take_apart(html)
    if not document.candidates:
        return None
    tool = CSSInliner(keep_at_rules=False, keep_link_tags=True, load_remote_stylesheets=False)
    after = tool.inline(before)
    found = document.count(after)
    opened = document.open_comments(before)
    # What is in a conditional comment is no element here, and is one to Outlook.
    hidden = document.count(tool.inline(opened)) - found if opened != before else Counter[str]()
    kept = {
        key
        for key, selector in document.candidates.items()
        if key not in found or key in hidden or (dynamic and re.search(r"[.#\[]", selector))
    }
    return Inlined(html=document.put_together(after, kept), before=before, after=after)


@dataclass(kw_only=True)
class _Document:
    """A document in parts: what the tool works on, and what is put back after it."""

    prefix: str
    logic: re.Pattern[str]
    candidates: dict[str, str] = field(default_factory=dict)  # selectors by their keys
    _comments: list[str] = field(default_factory=list)
    _sheets: list[tuple[str, list[tuple[StyleRule, tuple[str, ...]]]]] = field(default_factory=list)
    _doctype: str = ""

    def take_apart(self, html: str) -> str:
        """Return the document with a mark for each comment, and the rules to be written onto elements alone."""
        doctype = _DOCTYPE.search(html)
        self._doctype = doctype[0] if doctype else ""
        return _STYLE.sub(self._take_sheet, _COMMENT.sub(self._take_comment, html))

    def _take_comment(self, found: re.Match[str]) -> str:
        if found["comment"] is None:
            return found[0]
        self._comments.append(found[0])
        return f"<!--{self.prefix}c{len(self._comments) - 1}z-->"

    def _take_sheet(self, found: re.Match[str]) -> str:
        mark = f"<!--{self.prefix}s{len(self._sheets)}z-->"
        if _UNTOUCHED.search(found["attributes"]):
            self._sheets.append((found["attributes"], [(StyleRule(text=found["css"]), ())]))
            return mark
        rules = [(rule, self._keys(rule)) for rule in read_rules(found["css"], self.logic)]
        self._sheets.append((found["attributes"], rules))
        css = "".join(
            f"{self.candidates[key]}{{--{key}:1;{rule.declarations}}}\n" for rule, keys in rules for key in keys if key
        )
        return f"<style>{css}</style>{mark}"

    def _keys(self, rule: StyleRule) -> tuple[str, ...]:
        """Return a key for each selector; an empty one for a selector that stays."""
        keys = []
        for selector in rule.selectors:
            keys.append(f"{self.prefix}r{len(self.candidates)}z" if depends_on_document(selector) else "")
            if keys[-1]:
                self.candidates[keys[-1]] = selector
        return tuple(keys)

    def count(self, html: str) -> Counter[str]:
        """Return how many elements each selector came to."""
        return Counter(re.findall(rf"--({self.prefix}r\d+z):", html))

    def open_comments(self, html: str) -> str:
        """Return what Outlook reads: what is in conditional comments too."""
        return re.sub(
            rf"<!--{self.prefix}c(\d+)z-->",
            lambda mark: _CONDITION.sub("", self._comments[int(mark[1])]),
            html,
        )

    def put_together(self, html: str, kept: set[str]) -> str:
        """Return the document with all that was taken out of it, and the rules that stay."""
        key = rf"--{self.prefix}r\d+z: ?1(?:;\s*|(?=\"))"
        html = re.sub(rf' style="(?:{key})+"', "", html)
        html = re.sub(key, "", html)
        html = re.sub(rf"<!--{self.prefix}s(\d+)z-->", lambda mark: self._sheet(int(mark[1]), kept), html)
        html = re.sub(rf"<!--{self.prefix}c(\d+)z-->", lambda mark: self._comments[int(mark[1])], html)
        return _DOCTYPE.sub(lambda _: self._doctype, html, count=1)

    def _sheet(self, number: int, kept: set[str]) -> str:
        attributes, rules = self._sheets[number]
        css = "".join(
            rule.of([selector for selector, key in zip(rule.selectors, keys, strict=True) if not key or key in kept])
            if rule.selectors
            else rule.text
            for rule, keys in rules
        )
        return f"<style{attributes}>{css}</style>" if without_comments(css) else ""
