"""Inlines CSS: moves rules of ``<style>`` to style attributes. All other CSS stays as written, byte for byte.

Each rule gets an extra property as a marker, which shows after css_inline has run to which elements the rule was
applied. A rule that was applied to no element stays: it may be for elements that only a mail client creates
(``.ExternalClass``, ``u + .body``).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from css_inline import CSSInliner

from postroad.mail.style_sheet import StyleRule, depends_on_document, parse_rules, without_comments

_STYLE = re.compile(r"<style\b(?P<attributes>[^>]*)>(?P<css>.*?)(?:</style\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_UNTOUCHED = re.compile(
    r"""\bdata-css-inline\s*=\s*["']?ignore|\btype\s*=\s*(?!["']?\s*text/css)"""
    r"""|\bmedia\s*=\s*(?!["']?\s*(?:all|screen)\s*(?:["'/]|\Z))""",
    re.IGNORECASE,
)
_DOCTYPE = re.compile(r"<!doctype\b[^>]*>", re.IGNORECASE)
# Comments, and what HTML parses as one (WHATWG HTML §13.2.5.41): `<![endif]>`. Tags and text-only elements are matched
# first, because a text in them that looks like a comment is not one.
_COMMENT = re.compile(
    r"<(?P<element>style|script|title|textarea)\b[^>]*>.*?(?:</(?P=element)\s*>|\Z)"
    r"|(?P<comment><!--(?:-?>|.*?(?:--!?>|\Z))|<(?:!(?!doctype\b)|\?)[^>]*(?:>|\Z))"
    r"""|</?[a-z](?:"[^"]*"|'[^']*'|[^>"'])*>""",
    re.IGNORECASE | re.DOTALL,
)
_CONDITION = re.compile(r"<!--(?:\[if[^\]]*\]>)?|(?:<!\[endif\])?--!?>|<!\[[^>]*>", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Inlined:
    """HTML with inlined styles. ``before`` and ``after``: the input and the output of css_inline, for a comparison."""

    html: str
    before: str
    after: str


def inline_styles(html: str, *, prefix: str, logic: re.Pattern[str], dynamic: bool) -> Inlined | None:
    """Move the rules of style sheets to the style attributes of their elements. Loads no external resource.

    Args:
        html: A document.
        prefix: Letters that the document does not contain.
        logic: Matches template statements in a style sheet, which make its rules conditional.
        dynamic: Whether elements have classes that differ between recipients.

    Returns:
        The result. None if no rule can be inlined.

    Raises:
        css_inline.InlineError: A style sheet is invalid.
    """
    document = _Document(prefix=prefix, logic=logic)
    before = document.disassemble(html)
    if not document.candidates:
        return None
    inliner = CSSInliner(keep_at_rules=False, keep_link_tags=True, load_remote_stylesheets=False)
    after = inliner.inline(before)
    applied = document.count(after)
    uncommented = document.open_comments(before)
    # Outlook renders elements in conditional comments. Other clients and css_inline do not see them.
    for_outlook = document.count(inliner.inline(uncommented)) - applied if uncommented != before else Counter[str]()
    kept = {
        key
        for key, selector in document.candidates.items()
        if key not in applied or key in for_outlook or (dynamic and re.search(r"[.#\[]", selector))
    }
    return Inlined(html=document.reassemble(after, kept), before=before, after=after)


@dataclass(kw_only=True)
class _Document:
    """A document without the parts that css_inline must not change, and these parts, to be restored afterwards."""

    prefix: str
    logic: re.Pattern[str]
    candidates: dict[str, str] = field(default_factory=dict)  # selectors by their keys
    _comments: list[str] = field(default_factory=list)
    _sheets: list[tuple[str, list[tuple[StyleRule, tuple[str, ...]]]]] = field(default_factory=list)
    _doctype: str = ""

    def disassemble(self, html: str) -> str:
        """Return the document with a placeholder for each comment, and with those rules only that can be inlined."""
        doctype = _DOCTYPE.search(html)
        self._doctype = doctype[0] if doctype else ""
        return _STYLE.sub(self._replace_sheet, _COMMENT.sub(self._replace_comment, html))

    def _replace_comment(self, match: re.Match[str]) -> str:
        if match["comment"] is None:
            return match[0]
        self._comments.append(match[0])
        return f"<!--{self.prefix}c{len(self._comments) - 1}z-->"

    def _replace_sheet(self, match: re.Match[str]) -> str:
        placeholder = f"<!--{self.prefix}s{len(self._sheets)}z-->"
        if _UNTOUCHED.search(match["attributes"]):
            self._sheets.append((match["attributes"], [(StyleRule(text=match["css"]), ())]))
            return placeholder
        rules = [(rule, self._keys(rule)) for rule in parse_rules(match["css"], self.logic)]
        self._sheets.append((match["attributes"], rules))
        css = "".join(
            f"{self.candidates[key]}{{--{key}:1;{rule.declarations}}}\n" for rule, keys in rules for key in keys if key
        )
        return f"<style>{css}</style>{placeholder}"

    def _keys(self, rule: StyleRule) -> tuple[str, ...]:
        """Return a key for each selector: an empty one if the selector cannot be inlined."""
        keys = []
        for selector in rule.selectors:
            keys.append(f"{self.prefix}r{len(self.candidates)}z" if depends_on_document(selector) else "")
            if keys[-1]:
                self.candidates[keys[-1]] = selector
        return tuple(keys)

    def count(self, html: str) -> Counter[str]:
        """Return the number of elements to which each selector was applied, by its key."""
        return Counter(re.findall(rf"--({self.prefix}r\d+z):", html))

    def open_comments(self, html: str) -> str:
        """Return the document as Outlook sees it: with the content of conditional comments."""
        return re.sub(
            rf"<!--{self.prefix}c(\d+)z-->",
            lambda match: _CONDITION.sub("", self._comments[int(match[1])]),
            html,
        )

    def reassemble(self, html: str, kept: set[str]) -> str:
        """Return the document with the parts that were taken out, and with the rules that stay."""
        key = rf"--{self.prefix}r\d+z: ?1(?:;\s*|(?=\"))"
        html = re.sub(rf' style="(?:{key})+"', "", html)
        html = re.sub(key, "", html)
        html = re.sub(rf"<!--{self.prefix}s(\d+)z-->", lambda match: self._sheet(int(match[1]), kept), html)
        html = re.sub(rf"<!--{self.prefix}c(\d+)z-->", lambda match: self._comments[int(match[1])], html)
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
