"""Defines reply rules: which replies of a receiver slow a sender down, and how."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from postroad.dns.providers import OTHER_PROVIDERS
from postroad.settings import MAX_DURATION_MS, DurationMs, RateField
from postroad.smtp.reply import Phase, Reply

PACE = "pace"
"""Rule name of changes that adapt the rate."""


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None
    return text


Pattern = Annotated[str, AfterValidator(_pattern), Field(min_length=1, max_length=500)]


class ReplyCondition(BaseModel):
    """Which refusals match. All conditions that are given must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Pattern | None = Field(default=None, description="found anywhere in the reply's text, in any case")
    enhanced: Pattern | None = Field(default=None, description="all of the enhanced code")
    codes: tuple[int, ...] = Field(default=(), description="reply codes; none given: any that refuses")
    phases: tuple[Phase, ...] = Field(default=(), description="phases of the session; none given: any")

    @model_validator(mode="after")
    def _check_condition(self) -> Self:
        if self.text is None and self.enhanced is None and not self.codes:
            raise ValueError("it needs text, enhanced or codes, or it would match every reply")
        return self

    @cached_property
    def _text(self) -> re.Pattern[str] | None:
        return re.compile(self.text, re.IGNORECASE) if self.text is not None else None

    def matches(self, reply: Reply) -> bool:
        """Return whether a refusal matches. Replies that no server sent, such as a timeout, never match."""
        if reply.ours or reply.positive:
            return False
        if self.codes and reply.code not in self.codes:
            return False
        if self.phases and reply.phase not in self.phases:
            return False
        if self.enhanced is not None and re.fullmatch(self.enhanced, reply.enhanced or "") is None:
            return False
        return self._text is None or self._text.search(reply.text) is not None


class ShapingRule(ReplyCondition):
    """A change that is made when ``per_hour`` replies match within an hour."""

    providers: tuple[str, ...] = Field(default=(), description="mailbox providers; none given: every known one")
    per_hour: int = Field(default=1, ge=1, le=1000, description="acts at so many within an hour; 1: at once")
    suspend: bool = False
    rate: RateField | None = None
    connections: int | None = Field(default=None, ge=1)
    for_ms: DurationMs = Field(alias="for", gt=0, le=MAX_DURATION_MS)
    off: bool = Field(default=False, description="never acts: to switch off one that is shipped")

    @model_validator(mode="after")
    def _check_action(self) -> Self:
        if self.suspend == (self.rate is not None or self.connections is not None):
            raise ValueError("it needs either suspend = true, or rate and/or connections")
        return self

    def matches_at(self, provider: str, reply: Reply) -> bool:
        """Return whether a provider's reply matches. A rule without providers only matches known ones."""
        if self.off or (provider not in self.providers if self.providers else provider == OTHER_PROVIDERS):
            return False
        return self.matches(reply)


def rule_for(rules: Iterable[tuple[str, ShapingRule]], provider: str, reply: Reply) -> tuple[str, ShapingRule] | None:
    """Return the first rule that a reply matches, with its name. None: no rule matches."""
    return next(((name, rule) for name, rule in rules if rule.matches_at(provider, reply)), None)
