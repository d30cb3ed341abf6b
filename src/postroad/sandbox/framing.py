"""Splits received octets into command lines and message content.

`Framer.line` and `Framer.content` return None while the next unit is incomplete. Memory is bounded by their limits plus
one received chunk.
"""

from __future__ import annotations

from enum import Enum

from postroad.sandbox.phrases import OrdinaryReply

_END = b"\r\n.\r\n"
_EMPTY = b".\r\n"


class LineFlaw(Enum):
    TOO_LONG = OrdinaryReply.LINE_TOO_LONG
    BARE_LF = OrdinaryReply.BARE_LF_IN_COMMAND
    BARE_CR = OrdinaryReply.BARE_CR_IN_COMMAND


class TooLarge(Enum):
    """The content exceeded the limit. It was read to its end and discarded."""

    TOO_LARGE = "too large"


class Framer:
    """Buffers received octets and returns them in the units of the protocol."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._skipping_line = False
        self._in_content = False
        self._overflowed = False

    def __len__(self) -> int:
        """Return the number of buffered octets."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def discard(self) -> None:
        """Discard the buffer. RFC 3207 §4.2: data received before TLS must not be processed after it."""
        self._buffer.clear()
        self._searched = 0
        self._skipping_line = False

    def line(self, max_bytes: int) -> bytes | LineFlaw | None:
        """Take one command line.

        Args:
            max_bytes: Maximum length, including the CRLF.

        Returns:
            The line without its CRLF, a flaw, or None if the line is incomplete.
        """
        buffer = self._buffer
        end = buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(buffer)
            if self._searched > max_bytes:
                self._skipping_line = True
                buffer.clear()
                self._searched = 0
            return None
        line = bytes(buffer[: end + 1])
        del buffer[: end + 1]
        self._searched = 0
        if self._skipping_line or len(line) > max_bytes:
            self._skipping_line = False
            return LineFlaw.TOO_LONG
        if not line.endswith(b"\r\n"):
            return LineFlaw.BARE_LF
        if line.find(b"\r") != len(line) - 2:
            return LineFlaw.BARE_CR
        return line[:-2]

    def content(self, max_bytes: int) -> bytes | TooLarge | None:
        """Take one message up to the final dot.

        Only ``CRLF . CRLF`` ends it (RFC 5321 §4.1.1.4). Variants with a bare CR or LF are content.

        Args:
            max_bytes: Maximum length of the dot-stuffed content.

        Returns:
            The content, still dot-stuffed, with its last CRLF. None if it is incomplete.
        """
        buffer = self._buffer
        if not self._in_content:
            if len(buffer) < len(_EMPTY) and _EMPTY.startswith(bytes(buffer)):
                return None
            if buffer.startswith(_EMPTY):
                del buffer[: len(_EMPTY)]
                return b""
            self._in_content = True
        end = buffer.find(_END, self._searched)
        if end >= 0:
            content = bytes(buffer[: end + 2])
            del buffer[: end + len(_END)]
            overflowed = self._overflowed or len(content) > max_bytes
            self._searched, self._in_content, self._overflowed = 0, False, False
            return TooLarge.TOO_LARGE if overflowed else content
        if len(buffer) > max_bytes + len(_END):
            self._overflowed = True
            del buffer[: -(len(_END) - 1)]
        self._searched = max(0, len(buffer) - len(_END) + 1)
        return None


def unstuff_dots(content: bytes) -> bytes:
    """Return the content without dot stuffing (RFC 5321 §4.5.2)."""
    if content.startswith(b"."):
        content = content[1:]
    return content.replace(b"\r\n.", b"\r\n") if b"\r\n." in content else content


def content_flaw(content: bytes, *, max_line_bytes: int, eight_bit: bool) -> OrdinaryReply | None:
    """Return the reply that rejects content, or None. ``max_line_bytes`` 0: any length."""
    pairs = content.count(b"\r\n")
    if content.count(b"\n") != pairs:
        return OrdinaryReply.BARE_LF
    if content.count(b"\r") != pairs:
        return OrdinaryReply.BARE_CR
    if not eight_bit and not content.isascii():
        return OrdinaryReply.NOT_ANNOUNCED_8BIT
    if max_line_bytes and len(content) > max_line_bytes and _has_longer_line(content, max_line_bytes):
        return OrdinaryReply.TEXT_LINE_TOO_LONG
    return None


def _has_longer_line(content: bytes, max_line_bytes: int) -> bool:
    start = 0
    while start + max_line_bytes < len(content):
        # Skip to the last line end within the limit: all lines before it are short enough.
        end = content.rfind(b"\n", start, start + max_line_bytes)
        if end < 0:
            return True
        start = end + 1
    return False
