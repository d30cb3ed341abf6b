"""Converts an HTML message to plain text."""

from __future__ import annotations

import re
from collections.abc import Collection
from html.parser import HTMLParser

_UNSEEN = frozenset({"head", "style", "script", "title", "template", "noscript"})
_PARAGRAPHS = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "blockquote", "hr", "pre"})
_LINES = frozenset({"div", "tr", "li", "section", "article", "header", "footer", "dt", "dd", "center"})
_VOID = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"})
_HIDDEN = re.compile(r"display\s*:\s*none|mso-hide\s*:\s*all", re.IGNORECASE)
_BLANKS = re.compile(r"[ \t\n\f\r]+")  # not the no-break space
_INVISIBLE = re.compile("[\u00ad\u034f\u200b-\u200d\u2060\ufeff]+(?= |\n|$)")  # padding of a preview line


def plain_text(html: str, keep: Collection[str] = ()) -> str:
    """Convert HTML to text: with paragraphs and lists, links with addresses, and the alternative texts of images.

    Args:
        html: The document.
        keep: Comments that stay, as comments: placeholders of a template (`postroad.mail.placeholders`).

    Returns:
        The text.
    """
    reader = HtmlTextReader(keep)
    reader.feed(html)
    reader.close()
    return reader.text()


class HtmlTextReader(HTMLParser):
    """Reads an HTML document and collects its text. See `plain_text`."""

    def __init__(self, keep: Collection[str] = ()) -> None:
        super().__init__(convert_charrefs=True)
        self._keep = keep
        self._out: list[str] = []
        self._unseen: list[str] = []  # open elements that are not displayed
        self._links: list[tuple[str, int]] = []
        self._lists: list[int | None] = []

    def text(self) -> str:
        lines = [_INVISIBLE.sub("", line).rstrip(" ") for line in "".join(self._out).split("\n")]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if self._unseen or tag in _UNSEEN or _HIDDEN.search(values.get("style") or ""):
            if tag not in _VOID:
                self._unseen.append(tag)
            return
        self._break_before(tag)
        match tag:
            case "br":
                self._out.append("\n")
            case "hr":
                self._out.append("---\n\n")
            case "img":
                self._say(values.get("alt") or "")
            case "a":
                self._links.append((values.get("href") or "", len(self._out)))
            case "ul":
                self._lists.append(None)
            case "ol":
                self._lists.append(0)
            case "li":
                self._out.append(self._bullet())
            case "td" | "th":
                self._say(" ")
            case _:
                pass

    def handle_endtag(self, tag: str) -> None:
        if self._unseen:
            if tag in self._unseen:
                while self._unseen.pop() != tag:
                    pass
            return
        if tag == "a" and self._links:
            self._end_link(*self._links.pop())
        if tag in ("ul", "ol") and self._lists:
            self._lists.pop()
        self._break_before(tag)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self._say(data)

    def handle_comment(self, data: str) -> None:
        if not self._unseen and data in self._keep:
            self._out.append(f"<!--{data}-->")

    def _say(self, text: str) -> None:
        text = _BLANKS.sub(" ", text)
        if text.startswith(" ") and (not self._out or self._out[-1].endswith((" ", "\n"))):
            text = text[1:]
        if text:
            self._out.append(text)

    def _break_before(self, tag: str) -> None:
        if tag in _PARAGRAPHS and not (tag in ("ul", "ol") and self._lists):
            self._out.append("\n\n")
        elif (tag in _LINES or tag in ("ul", "ol")) and self._out and not self._out[-1].endswith("\n"):
            self._out.append("\n")

    def _bullet(self) -> str:
        indent = "  " * (len(self._lists) - 1)
        if not self._lists or self._lists[-1] is None:
            return f"{indent}* "
        self._lists[-1] += 1
        return f"{indent}{self._lists[-1]}. "

    def _end_link(self, href: str, since: int) -> None:
        shown = "".join(self._out[since:]).strip()
        if href and not href.startswith("#") and shown not in (href, href.removeprefix("mailto:")):
            self._out.append(f" ({href})" if shown else href)
