"""The steps of a session: a reply, the next state, and the fault to apply."""

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


class SessionStep(msgspec.Struct, frozen=True):
    reply: bytes
    next_state: NextState = NextState.COMMAND
    fault: Fault | None = None


class StepFactory:
    """Creates the steps of one session, and counts rejections."""

    def __init__(self, context: SandboxContext) -> None:
        self._context = context
        self._errors = 0
        self.enhanced = Extension.ENHANCEDSTATUSCODES in context.offered

    def reply(self, phrase: OrdinaryReply, next_state: NextState = NextState.COMMAND) -> SessionStep:
        return SessionStep(self._context.phrases[phrase], next_state)

    def refuse(self, phase: RulePhase, phrase: OrdinaryReply) -> SessionStep:
        self._context.counters.refused[phase] += 1
        return self.reply(phrase)

    def error(self, phrase: OrdinaryReply, phase: RulePhase | None = None) -> SessionStep:
        """Reject a command with a syntax or sequence error. After too many of them the connection is closed."""
        if phase is not None:
            self._context.counters.refused[phase] += 1
        self._errors += 1
        if self._errors < self._context.config.max_command_errors:
            return self.reply(phrase)
        phrases = self._context.phrases
        return SessionStep(phrases[phrase] + phrases[OrdinaryReply.TOO_MANY_ERRORS], NextState.CLOSE)

    def with_verdict(
        self, phase: RulePhase, verdict: RuleVerdict, ordinary: SessionStep, fields: Mapping[str, str] | None = None
    ) -> SessionStep:
        """Return the ordinary step, modified by a verdict. ``fields``: values for the text of the reply."""
        reply = verdict.reply
        if reply is None:
            return SessionStep(ordinary.reply, ordinary.next_state, verdict.fault)
        next_state = ordinary.next_state
        if reply.code >= 400:
            self._context.counters.refused[phase] += 1
            # RFC 5321 §3.8: the server closes after a 421, and after a rejection at the greeting or at QUIT.
            ends = reply.code == 421 or next_state is NextState.CLOSE or phase is RulePhase.CONNECT
            next_state = NextState.CLOSE if ends else NextState.COMMAND
        return SessionStep(reply.encode(enhanced=self.enhanced, fields=fields), next_state, verdict.fault)
