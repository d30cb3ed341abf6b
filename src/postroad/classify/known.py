"""Documented replies: what a reply of one provider means exactly. They are a table: `known.toml`."""

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

    ``providers``: mailbox providers that mean this by it. None: nobody else uses these words. ``confidence``: high,
    unless it is said also where the reason is not known.
    """

    name: str
    text: str
    cause: Cause
    source: str
    status: str | None = None
    providers: tuple[str, ...] = ()
    confidence: Confidence = Confidence.HIGH

    def fits(self, said: Statement) -> bool:
        """Whether a statement is this reply. A host of no known provider may mean the same by it."""
        if self.providers and said.provider and said.provider not in self.providers:
            return False
        if self.status is not None and re.fullmatch(self.status, said.status or "") is None:
            return False
        return _compiled(self.text).search(_LEADING_CODES.sub("", said.text)) is not None

    def confidence_in(self, said: Statement) -> Confidence:
        """Return how sure it is that a statement means this: the words of others are no documented reply."""
        return Confidence.LOW if self.providers and not said.provider else self.confidence


_LEADING_CODES: Final = re.compile(r"^(?:\s*(?:[245]\d\d[ -]|#?[245]\.\d{1,3}\.\d{1,3}\b))+\s*")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


@cache
def known_replies() -> tuple[KnownReply, ...]:
    """Return the documented replies, as shipped, in order."""
    content = tomllib.loads(files("postroad.classify").joinpath("known.toml").read_text(encoding="utf-8"))
    return msgspec.convert(content["reply"], tuple[KnownReply, ...])
