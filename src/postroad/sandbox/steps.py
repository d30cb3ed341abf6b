"""What a session does next: a reply, what comes after it, and the fault that bends it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

import msgspec

from postroad.sandbox.config import Extension
from postroad.sandbox.context import SandboxContext
from postroad.sandbox.phrases import OrdinaryReply
from postroad.sandbox.rulebook import RuleVerdict
from postroad.sandbox.rules import Fault, RulePhase


class NextState(Enum):
    """What the session expects after a step."""

    COMMAND = auto()
    CONTENT = auto()
    TLS = auto()
    CLOSE = auto()


class DialogueStep(msgspec.Struct, frozen=True):
    reply: bytes
    then: NextState = NextState.COMMAND
    fault: Fault | None = None


class StepReplies:
    """Makes the steps of one session, and counts what was refused."""

    def __init__(self, context: SandboxContext) -> None:
        self._context = context
        self._errors = 0
        self.enhanced = Extension.ENHANCEDSTATUSCODES in context.offered

    def say(self, phrase: OrdinaryReply, then: NextState = NextState.COMMAND) -> DialogueStep:
        return DialogueStep(self._context.phrases[phrase], then)

    def refuse(self, phase: RulePhase, phrase: OrdinaryReply) -> DialogueStep:
        self._context.counters.refused[phase] += 1
        return self.say(phrase)

    def error(self, phrase: OrdinaryReply, phase: RulePhase | None = None) -> DialogueStep:
        """Refuse a command for its form. Too many such, and the connection ends."""
        if phase is not None:
            self._context.counters.refused[phase] += 1
        self._errors += 1
        if self._errors < self._context.config.max_command_errors:
            return self.say(phrase)
        phrases = self._context.phrases
        return DialogueStep(phrases[phrase] + phrases[OrdinaryReply.TOO_MANY_ERRORS], NextState.CLOSE)

    def judged(
        self, phase: RulePhase, verdict: RuleVerdict, ordinary: DialogueStep, fields: Mapping[str, str] | None = None
    ) -> DialogueStep:
        """Return the ordinary step, bent by the verdict. ``fields`` fill the wording of the reply."""
        reply = verdict.reply
        if reply is None:
            return DialogueStep(ordinary.reply, ordinary.then, verdict.fault)
        then = ordinary.then
        if reply.code >= 400:
            self._context.counters.refused[phase] += 1
            # RFC 5321 §3.8: after 421 the server closes. So it does when it refuses the greeting or QUIT.
            ends = reply.code == 421 or then is NextState.CLOSE or phase is RulePhase.CONNECT
            then = NextState.CLOSE if ends else NextState.COMMAND
        return DialogueStep(reply.encode(enhanced=self.enhanced, fields=fields), then, verdict.fault)
