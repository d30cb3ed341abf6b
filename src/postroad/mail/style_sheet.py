"""Parses style sheets into rules that can be inlined and rules that must stay in ``<style>``.

A rule can be inlined if its selectors depend on the document only. Rules that depend on the mail client or on the
user's actions (``:hover``, ``@media``, ``u + .body``) stay in the style sheet as written. CSS is parsed as in CSS
Syntax Module Level 3, §5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from postroad.mail.vocabulary import words

_PARTS = re.compile(
    r"""(?P<comment>/\*.*?(?:\*/|\Z)|<!--|-->)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|\\.|(?P<sign>[{}()\[\];,])""",
    re.DOTALL,
)
_OPENING, _CLOSING = "{([", "})]"
_PSEUDO = re.compile(r"::?([A-Za-z-]+)")
_NOT_PSEUDO = re.compile(r"""\\.|\[[^\]]*\]|"[^"]*"|'[^']*'""", re.DOTALL)
# Structural pseudo-classes (Selectors Level 4, §14). Without `:root`, which holds variables.
_STRUCTURAL = words(
    "empty first-child first-of-type has is last-child last-of-type not nth-child nth-last-child nth-last-of-type "
    "nth-of-type only-child only-of-type where"
)


@dataclass(frozen=True, kw_only=True)
class StyleRule:
    """One rule of a style sheet.

    Attributes:
        text: The rule as written, with the blanks and comments before it.
        selectors: Its selectors. Empty if the rule must stay.
        declarations: The text between its braces.
    """

    text: str
    selectors: tuple[str, ...] = ()
    declarations: str = ""

    def of(self, selectors: list[str]) -> str:
        """Return the text of the rule with some of its selectors only."""
        if len(selectors) == len(self.selectors):
            return self.text
        return f"\n{', '.join(selectors)} {{{self.declarations}}}" if selectors else ""


def parse_rules(css: str, logic: re.Pattern[str]) -> list[StyleRule]:
    """Split a style sheet into rules.

    Args:
        css: The style sheet.
        logic: Matches template statements, which make rules conditional. All rules from the first to the last
            statement must stay.

    Returns:
        The rules, in order.
    """
    texts = list(_rules(css))
    found = [number for number, (text, _) in enumerate(texts) if logic.search(text)]
    conditional = range(found[0], found[-1] + 1) if found else range(0)
    return [
        _rule(text, brace) if number not in conditional else StyleRule(text=text)
        for number, (text, brace) in enumerate(texts)
    ]


def depends_on_document(selector: str) -> bool:
    """Return whether the document alone determines which elements a selector matches."""
    plain = _NOT_PSEUDO.sub("", selector)
    return all(name[1].lower() in _STRUCTURAL and not name[0].startswith("::") for name in _PSEUDO.finditer(plain))


def _rules(css: str) -> Iterator[tuple[str, int | None]]:
    """Yield the text of each rule, and the position of its opening brace."""
    start, brace, depth = 0, None, 0
    for part in _PARTS.finditer(css):
        sign = part["sign"]
        if sign is None:
            continue
        if sign == "{" and depth == 0:
            brace = part.start() - start
        depth = depth + 1 if sign in _OPENING else max(depth - 1, 0) if sign in _CLOSING else depth
        at_rule = without_comments(css[start : part.start()]).startswith("@") if sign == ";" and depth == 0 else False
        if depth == 0 and (sign == "}" or at_rule):
            yield css[start : part.end()], brace
            start, brace = part.end(), None
    if css[start:]:
        yield css[start:], brace


def _rule(text: str, brace: int | None) -> StyleRule:
    prelude = without_comments(text[:brace]) if brace is not None else ""
    block = text[brace + 1 :].strip().removesuffix("}") if brace is not None else ""
    nested = any(part["sign"] == "{" for part in _PARTS.finditer(block))
    if not prelude or prelude.startswith("@") or nested:
        return StyleRule(text=text)
    return StyleRule(text=text, selectors=tuple(_selectors(prelude)), declarations=block)


def _selectors(prelude: str) -> Iterator[str]:
    start = depth = 0
    for part in _PARTS.finditer(prelude):
        sign = part["sign"] or ""
        depth += (sign in _OPENING) - (sign in _CLOSING) if sign else 0
        if sign == "," and depth == 0:
            yield prelude[start : part.start()].strip()
            start = part.end()
    yield prelude[start:].strip()


def without_comments(css: str) -> str:
    """Return a style sheet without comments, CDO and CDC (CSS Syntax §4.3)."""
    return _PARTS.sub(lambda part: " " if part["comment"] else part[0], css).strip()
