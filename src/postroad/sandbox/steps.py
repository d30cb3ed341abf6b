"""What a session does next: a reply, what comes after it, and the fault that bends it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

import msgspec

from postroad.sandbox.config import Extension
from postroad.sandbox.context import Context
from postroad.sandbox.phrases import Phrase
from postroad.sandbox.rulebook import Verdict
from postroad.sandbox.rules import Fault, Phase


class Then(Enum):
    """What the session expects after a step."""

    COMMAND = auto()
    CONTENT = auto()
    TLS = auto()
    CLOSE = auto()


class Step(msgspec.Struct, frozen=True):
    reply: bytes
    then: Then = Then.COMMAND
    fault: Fault | None = None


class Answers:
    """Makes the steps of one session, and counts what was refused."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._errors = 0
        self.enhanced = Extension.ENHANCEDSTATUSCODES in context.offered

    def say(self, phrase: Phrase, then: Then = Then.COMMAND) -> Step:
        return Step(self._context.phrases[phrase], then)

    def refuse(self, phase: Phase, phrase: Phrase) -> Step:
        self._context.counters.refused[phase] += 1
        return self.say(phrase)

    def error(self, phrase: Phrase, phase: Phase | None = None) -> Step:
        """Refuse a command for its form. Too many such, and the connection ends."""
        if phase is not None:
            self._context.counters.refused[phase] += 1
        self._errors += 1
        if self._errors < self._context.config.max_command_errors:
            return self.say(phrase)
        phrases = self._context.phrases
        return Step(phrases[phrase] + phrases[Phrase.TOO_MANY_ERRORS], Then.CLOSE)

    def judged(
        self, phase: Phase, verdict: Verdict, ordinary: Step, fields: Mapping[str, str] | None = None
    ) -> Step:
        """Return the ordinary step, bent by the verdict. ``fields`` fill the wording of the reply."""
        reply = verdict.reply
        if reply is None:
            return Step(ordinary.reply, ordinary.then, verdict.fault)
        then = ordinary.then
        if reply.code >= 400:
            self._context.counters.refused[phase] += 1
            # RFC 5321 §3.8: after 421 the server closes. So it does when it refuses the greeting or QUIT.
            ends = reply.code == 421 or then is Then.CLOSE or phase is Phase.CONNECT
            then = Then.CLOSE if ends else Then.COMMAND
        return Step(reply.encode(enhanced=self.enhanced, fields=fields), then, verdict.fault)
