"""Prepares HTML for mail clients: inlines styles, compiles MJML, and derives the plain text.

All of this is done to templates, once for each step, before the merge fields are known.
"""

from __future__ import annotations

import re
from collections import Counter

from css_inline import InlineError
from mjml import mjml2html

from postroad.errors import ConfigError
from postroad.mail.inline_styles import inline_styles
from postroad.mail.placeholders import MaskedHtml, mask, unused
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
# Parsers insert these tags if they are omitted (WHATWG HTML §13.1.2.4), or css_inline removes them.
_OPTIONAL = frozenset(
    {"html", "head", "body", "style", "p", "li", "dt", "dd", "tr", "td", "th", "tbody", "thead", "tfoot", "option"}
)
_KEEP_STYLES = 'Write <style data-css-inline="ignore">, and the HTML is used as written.'


def prepare_parts(*, text: str | None, html: str | None, mjml: str | None, name: str) -> tuple[str, str | None]:
    """Return the templates of the text part and the HTML part of a step.

    Args:
        text: The author's template of the text. None: it is derived from the HTML.
        html: The author's template of the HTML. Its styles are inlined.
        mjml: The author's template in MJML, from which the HTML is compiled.
        name: Campaign and step, for errors.

    Returns:
        The templates of text and HTML.

    Raises:
        ConfigError: A template is invalid.
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
    """Inline the styles of a template. Loads no external resource.

    Rules that cannot be inlined, such as media queries and ``:hover``, stay, and so do comments and the doctype.

    Args:
        source: The template.
        name: Its name, for errors.

    Returns:
        The template with inlined styles. A template without styles is returned unchanged.

    Raises:
        ConfigError: The CSS is invalid, or the template's logic does not permit inlining.
    """
    if not _STYLE.search(source):
        return source
    compile_template(source, name=name, html=True)  # so that errors have lines of the source
    masked = mask(source, name=name)
    try:
        inlined = inline_styles(
            masked.html, prefix=unused("zr", masked.html), logic=masked.statements, dynamic=masked.has_dynamic_class
        )
    except InlineError as error:
        raise ConfigError(f"its CSS is invalid: {error}", where=name, remedy=_KEEP_STYLES) from None
    if inlined is None:
        return source
    if masked.placeholders and _tags(inlined.before) != _tags(inlined.after):
        raise ConfigError(
            "its tags do not match in pairs because of its logic, so that CSS cannot find its elements",
            where=name,
            remedy=f"Put whole elements into every block of logic. Or: {_KEEP_STYLES}",
        )
    return masked.unmask(inlined.html, name=name, remedy=_KEEP_STYLES)


def mjml_to_html(source: str, *, name: str) -> str:
    """Compile MJML (https://documentation.mjml.io) to HTML.

    Args:
        source: The template in MJML.
        name: Its name, for errors.

    Returns:
        The template in HTML.

    Raises:
        ConfigError: The template is not valid MJML.
    """
    compile_template(source, name=name, html=True)
    masked = mask(source, name=name, comments=False)
    for component in _COMPONENT.finditer(masked.html):
        if component[1] not in _COMPONENTS:  # mjml2html would silently drop its content.
            line = _unmask_loosely(masked, masked.html[: component.start()]).count("\n") + 1
            raise ConfigError(f"MJML has no component {component[1]}", where=f"{name}, line {line}")
    try:
        html = mjml2html(masked.html)
    except ValueError as error:
        reason, position = _unmask_loosely(masked, str(error)), _POSITION.search(str(error))
        before = masked.html.encode()[: int(position[1])].decode(errors="replace") if position else ""
        line = _unmask_loosely(masked, before).count("\n") + 1
        raise ConfigError(f"not valid MJML: {_POSITION.sub('', reason)}", where=f"{name}, line {line}") from None
    return masked.unmask(
        html, name=name, remedy="Use only {% … %} between components, and put fields into a text component."
    )


def text_of(html: str, *, name: str) -> str:
    """Derive the template of the text part from that of the HTML part. Raises ConfigError if the HTML is invalid."""
    compile_template(html, name=name, html=True)
    masked = mask(html, name=name)
    return _unmask_loosely(
        masked, plain_text(masked.html, {placeholder.comment for placeholder in masked.placeholders})
    )


def _unmask_loosely(masked: MaskedHtml, text: str) -> str:
    """Replace the placeholders that are there by the Jinja code. Others, such as those in styles, may be missing."""
    for placeholder in reversed(masked.placeholders):
        text = text.replace(f"<!--{placeholder.comment}-->", placeholder.source).replace(
            placeholder.word, placeholder.source
        )
    return text


def _tags(html: str) -> Counter[str]:
    names = (tag.lower() for tag in _TAGS.findall(html))
    return Counter(tag for tag in names if tag.strip("</") not in _OPTIONAL)
