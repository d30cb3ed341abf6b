"""SMTP replies, and those of real providers in ``replies.toml``, each with the page that documents it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import msgspec

#: RFC 5321 §4.2.2, for a reply that is specified by its code only.
_STANDARD_TEXT = {
    421: "Service not available, closing transmission channel",
    450: "Requested mail action not taken: mailbox unavailable",
    451: "Requested action aborted: local error in processing",
    452: "Requested action not taken: insufficient system storage",
    550: "Requested action not taken: mailbox unavailable",
    551: "User not local",
    552: "Requested mail action aborted: exceeded storage allocation",
    553: "Requested action not taken: mailbox name not allowed",
    554: "Transaction failed",
}
_LITERAL = re.compile(r"([245]\d\d)(?:[ -]([245]\.\d{1,3}\.\d{1,3}))?(?: (.+))?", re.DOTALL)
_FIELD = re.compile(r"\{(\w+)\}")


class SandboxReply(msgspec.Struct, frozen=True):
    """A reply: its code, its enhanced code (RFC 3463, or empty) and its lines."""

    code: int
    enhanced: str
    lines: tuple[str, ...]

    def encode(self, *, enhanced: bool = True, fields: Mapping[str, str] | None = None) -> bytes:
        """Encode the reply for sending. RFC 2034 §4: the enhanced code is on every line.

        Args:
            enhanced: Whether to include the enhanced code.
            fields: Values for ``{name}`` in the lines. Unknown names stay.

        Returns:
            The reply, with CRLF line ends.
        """
        prefix = f"{self.enhanced} " if enhanced and self.enhanced else ""
        last = len(self.lines) - 1
        out: list[str] = []
        for number, line in enumerate(self.lines):
            text = _FIELD.sub(lambda m: fields.get(m[1], m[0]), line) if fields else line
            out.append(f"{self.code}{' ' if number == last else '-'}{prefix}{text}\r\n")
        return "".join(out).encode("utf-8")


class ProviderReply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of ``replies.toml``."""

    provider: str
    phase: str
    """The phase in which the provider is known to send it."""
    code: int
    enhanced: str = ""
    lines: tuple[str, ...]
    source: str
    """The page that documents or quotes the wording."""

    @property
    def reply(self) -> SandboxReply:
        return SandboxReply(self.code, self.enhanced, self.lines)


@cache
def provider_replies() -> Mapping[str, ProviderReply]:
    """Return the providers' replies by name."""
    text = files("postroad.sandbox").joinpath("replies.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, ProviderReply])


def parse_reply(text: str) -> SandboxReply:
    """Parse the reply of a fault.

    Args:
        text: A name in ``replies.toml``, or a reply such as ``550 5.1.1 text``, with newlines between its lines.

    Returns:
        The reply.

    Raises:
        ValueError: The text is neither.
    """
    named = provider_replies().get(text)
    if named is not None:
        return named.reply
    spelled = _LITERAL.fullmatch(text)
    if spelled is None or "\r" in text:
        raise ValueError(f"{text!r} is neither a reply (550 5.1.1 text) nor a name in replies.toml")
    code = int(spelled[1])
    words = spelled[3] or _STANDARD_TEXT.get(code, "Refused on request")
    return SandboxReply(code, spelled[2] or "", tuple(words.split("\n")))
