"""The document of a frame that shows a message: no script runs, no remote file loads, no form is sent."""

from __future__ import annotations

from html import escape
from typing import Final

FRAME_HEADERS: Final = {
    # The header repeats the sandbox of the frame's element: a message that is opened by itself is as confined.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'self'; sandbox"
    ),
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
}
"""Headers of the document. Styles are part of an HTML message; it has an origin of its own, so they change no page."""

_TEXT_STYLE = "margin:0;padding:16px;white-space:pre-wrap;overflow-wrap:anywhere;font:14px/1.5 ui-monospace,monospace"


def frame_document(html: str | None, text: str) -> bytes:
    """Return the document: the HTML part of a message, or its text if it has none.

    Args:
        html: The HTML part.
        text: The text part.
    """
    if html is not None:
        return html.encode("utf-8", "replace")
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Message</title>'
    body = f'<body style="background:#fff;color:#111"><pre style="{_TEXT_STYLE}">{escape(text)}</pre>'
    return (head + body).encode("utf-8", "replace")
