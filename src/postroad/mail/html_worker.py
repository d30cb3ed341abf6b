"""Runs the child process that reads HTML bodies: ``python -m postroad.mail.html_worker``."""

from __future__ import annotations

import msgspec

from postroad.confined import serve
from postroad.mail.html_content import read_html, read_template
from postroad.mail.html_reader import LIMITS, HtmlRequest

_decode = msgspec.msgpack.Decoder(HtmlRequest).decode
_encode = msgspec.msgpack.Encoder().encode


def handle_request(request: bytes) -> bytes:
    """Read the body of an encoded `HtmlRequest`, and return the encoded content."""
    decoded = _decode(request)
    return _encode(read_template(decoded.source) if decoded.template else read_html(decoded.source))


if __name__ == "__main__":
    serve(handle_request, LIMITS)
