"""HTML as mail readers want it: styles on the elements, MJML made into tables, and a text beside it.

All of it happens to templates, once for each step, before any merge field is known.
"""

from __future__ import annotations

import re
from collections import Counter

from css_inline import InlineError
from mjml import mjml2html

from postroad.errors import ConfigError
from postroad.mail.inline_styles import inline_styles
from postroad.mail.marks import MarkedHtml, mark, unused
from postroad.mail.plain_text import plain_text
from postroad.mail.template import compile_template

_STYLE = re.compile(r"<style\b(?![^>]*\bdata-css-inline\s*=\s*[\"']?ignore)", re.IGNORECASE)
_COMPONENT = re.compile(r"<(mj-[A-Za-z-]+)")
_COMPONENTS = frozenset(
    f"mj-{name}"
    for name in (
        *("accordion", "accordion-element", "accordion-text", "accordion-title", "all", "attributes", "body"),
        *("breakpoint", "button", "carousel", "carousel-image", "class", "column", "divider", "font", "group", "head"),
        *("hero", "html-attribute", "html-attributes", "image", "include", "navbar", "navbar-link", "preview", "raw"),
        *("section", "selector", "social", "social-element", "spacer", "style", "table", "text", "title", "wrapper"),
    )
)
_POSITION = re.compile(r" at position (\d+):\d+")
_TAGS = re.compile(r"</?[a-z][a-z0-9]*", re.IGNORECASE)
# HTML adds these where they are left out (WHATWG HTML §13.1.2.4), or the inliner takes them away.
_OPTIONAL = frozenset(
    {"html", "head", "body", "style", "p", "li", "dt", "dd", "tr", "td", "th", "tbody", "thead", "tfoot", "option"}
)
_KEEP_STYLES = 'Write <style data-css-inline="ignore">, and the HTML is taken as it stands.'


def finished(*, text: str | None, html: str | None, mjml: str | None, name: str) -> tuple[str, str | None]:
    """Return the templates of text and HTML as messages have them, from those that were written.

    ``name``: what they are of, for errors. Raises ConfigError.
    """
    if mjml is not None:
        html = mjml_to_html(mjml, name=f"{name}, mjml")
    elif html is not None:
        html = inline_css(html, name=f"{name}, html")
    if text is None:
        assert html is not None  # noqa: S101  (a step has one of the three)
        text = text_of(html, name=f"{name}, html")
    return text, html


def inline_css(source: str, *, name: str) -> str:
    """Move the rules of ``<style>`` onto the elements that they are for. Nothing is loaded.

    What cannot be moved, such as media queries and ``:hover``, stays, and so do comments and the doctype, as written.

    A template without styles is returned as it is. Raises ConfigError where logic and styles do not go together.
    """
    if not _STYLE.search(source):
        return source
    compile_template(source, name=name, html=True)  # What is wrong with it is said of the source.
    marked = mark(source, name=name)
    try:
        inlined = inline_styles(
            marked.html, prefix=unused("zr", marked.html), logic=marked.statements, dynamic=marked.has_dynamic_class
        )
    except InlineError as error:
        raise ConfigError(f"its CSS cannot be read: {error}", where=name, remedy=_KEEP_STYLES) from None
    if inlined is None:
        return source
    if marked.marks and _tags(inlined.before) != _tags(inlined.after):
        raise ConfigError(
            "its tags do not match in pairs, as its logic stands, so that CSS cannot find its elements",
            where=name,
            remedy=f"Let every block of logic hold whole elements. Or: {_KEEP_STYLES}",
        )
    return marked.undo(inlined.html, name=name, remedy=_KEEP_STYLES)


def mjml_to_html(source: str, *, name: str) -> str:
    """Make HTML of MJML (https://documentation.mjml.io). Raises ConfigError for what is none."""
    compile_template(source, name=name, html=True)
    marked = mark(source, name=name, comments=False)
    for component in _COMPONENT.finditer(marked.html):
        if component[1] not in _COMPONENTS:  # The engine would leave out all that is in it, without a word.
            line = _undo_loosely(marked, marked.html[: component.start()]).count("\n") + 1
            raise ConfigError(f"MJML has no component {component[1]}", where=f"{name}, line {line}")
    try:
        html = mjml2html(marked.html)
    except ValueError as error:
        said, at = _undo_loosely(marked, str(error)), _POSITION.search(str(error))
        before = marked.html.encode()[: int(at[1])].decode(errors="replace") if at else ""
        line = _undo_loosely(marked, before).count("\n") + 1
        raise ConfigError(f"no MJML: {_POSITION.sub('', said)}", where=f"{name}, line {line}") from None
    return marked.undo(
        html, name=name, remedy="Between components only {% … %} may stand; a field belongs into a text."
    )


def text_of(html: str, *, name: str) -> str:
    """Make the text part from the HTML of a message: a template too. Raises ConfigError."""
    compile_template(html, name=name, html=True)
    marked = mark(html, name=name)
    return _undo_loosely(marked, plain_text(marked.html, {each.comment for each in marked.marks}))


def _undo_loosely(marked: MarkedHtml, text: str) -> str:
    """Put back what is there. What stood in styles and the like is not, and is not missed."""
    for found in reversed(marked.marks):
        text = text.replace(f"<!--{found.comment}-->", found.source).replace(found.word, found.source)
    return text


def _tags(html: str) -> Counter[str]:
    names = (tag.lower() for tag in _TAGS.findall(html))
    return Counter(tag for tag in names if tag.strip("</") not in _OPTIONAL)
