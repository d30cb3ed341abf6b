"""Documented replies: the exact meaning of one provider's reply. The table is `known.toml`."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Final

import msgspec
from msgspec import Struct

from postroad.classify.cause import Cause, Confidence
from postroad.classify.statement import Statement


class KnownReply(Struct, frozen=True, kw_only=True):
    """One row of `known.toml`.

    Attributes:
        name: Name of the rule.
        text: Regular expression that the text contains.
        cause: Meaning of the reply.
        source: Where the meaning is documented.
        status: Regular expression of the whole enhanced code. None: any code.
        providers: Mailbox providers that use the words in this sense. Empty: the words have one sense everywhere.
        confidence: High, unless the provider also uses the words for other causes.
    """

    name: str
    text: str
    cause: Cause
    source: str
    status: str | None = None
    providers: tuple[str, ...] = ()
    confidence: Confidence = Confidence.HIGH

    def fits(self, statement: Statement) -> bool:
        """Return whether a statement is this reply. A host of an unknown provider may use it in the same sense."""
        if self.providers and statement.provider and statement.provider not in self.providers:
            return False
        if self.status is not None and re.fullmatch(self.status, statement.status or "") is None:
            return False
        return _compiled(self.text).search(_LEADING_CODES.sub("", statement.text)) is not None

    def confidence_in(self, statement: Statement) -> Confidence:
        """Return the confidence for a statement. It is low for an unknown provider, which documents no such reply."""
        return Confidence.LOW if self.providers and not statement.provider else self.confidence


_LEADING_CODES: Final = re.compile(r"^(?:\s*(?:[245]\d\d[ -]|#?[245]\.\d{1,3}\.\d{1,3}\b))+\s*")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


@cache
def known_replies() -> tuple[KnownReply, ...]:
    """Return the documented replies, in order."""
    content = tomllib.loads(files("postroad.classify").joinpath("known.toml").read_text(encoding="utf-8"))
    return msgspec.convert(content["reply"], tuple[KnownReply, ...])
