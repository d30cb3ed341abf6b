"""postroad bounce classify: what a reply of a mail server means, without sending anything."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from postroad.classify.cause import Confidence
from postroad.classify.classify import classify
from postroad.classify.evidence import find_evidence
from postroad.classify.statement import Speaker, Statement
from postroad.classify.text import clean
from postroad.cli.names import require_provider
from postroad.cli.output import JsonOption, print_json, print_line, print_table
from postroad.delivery.outcome import classify_reply
from postroad.errors import Blame, UsageError
from postroad.printable import counted
from postroad.smtp.reply import Phase, Reply, parse_reply

_LINE: Final = re.compile(r"\s*([2-5]\d\d)(?:[ \-]|$)(.*)")
NOT_A_FAILURE: Final = "not a failure"
_REMEDY: Final = 'Give a reply as the server sent it: "550 5.1.1 User unknown".'
_IN_TRANSACTION: Final = (Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT)


@dataclass(frozen=True, kw_only=True)
class ClassifiedReply:
    """One reply, and what it means. Its JSON has `cause` as ``class``.

    Attributes:
        reply: The reply as it was given.
        cause: Why the message is not taken.
        suppresses: Whether the address is not to be mailed again.
        pauses: What else is held back: the sender, the sender at this provider, or the route.
        fault: Whose fault it is.
        outcome: What becomes of the message.
        confidence: What the classification rests on.
        rule: The words, code or documented reply that decided.
        reason: One sentence for a person.
    """

    reply: str
    cause: str
    suppresses: bool
    pauses: str | None
    fault: Blame | None
    outcome: str
    confidence: Confidence
    rule: str
    reason: str

    def as_json(self) -> dict[str, object]:
        """Return the fields in their order, for scripts."""
        fields = {"reply": self.reply, "class": self.cause, "suppresses": self.suppresses, "pauses": self.pauses}
        return fields | {name: getattr(self, name) for name in ("rule", "fault", "outcome", "confidence", "reason")}


def classify_command(
    reply: Annotated[str, typer.Argument(help="A reply with its codes. `-`: one a line from standard input.")],
    phase: Annotated[
        Phase, typer.Option(help="What it answers: mail, rcpt, data, or dot (the end of the message).")
    ] = Phase.RCPT,
    provider: Annotated[str, typer.Option(help="Mailbox provider of the recipient, such as google.")] = "",
    speaker: Annotated[Speaker, typer.Option("--from", help="Who replied.")] = Speaker.RECEIVER,
    as_json: JsonOption = False,
) -> None:
    r"""Say what a reply of a mail server means: for the message, its recipient and its sender.

    Nothing is sent and nothing changes. Lines of one reply are separated by `\\n`, written as these two characters.

    A text that is not a reply of a failure is an error. Of several lines, the others are classified all the same.

    Example: postroad bounce classify "550 5.1.1 User unknown"
    """
    if provider:
        require_provider(provider)
    if reply != "-":
        problem = _not_a_failure(reply)
        if problem:
            raise UsageError(f"this is not a reply of a failure: {problem}", remedy=_REMEDY)
        one = _classify(reply, phase, provider, speaker)
        if as_json:
            print_json(one.as_json())
        else:
            _print_one(one)
        return
    found = []
    for text in _lines(sys.stdin):
        problem = _not_a_failure(text)
        one = _unclassified(text, problem) if problem else _classify(text, phase, provider, speaker)
        found.append(one)
        if as_json:
            print_json(one.as_json())
    if not as_json:
        rows = [(one.cause, one.suppresses, one.pauses, one.rule, one.reply) for one in found]
        print_table("replies", ["class", "suppresses", "pauses", "rule", "reply"], rows)
    wrong = sum(1 for one in found if one.cause == NOT_A_FAILURE)
    if wrong:
        raise UsageError(f"{wrong:,} of {counted(len(found), 'line')} are not replies of a failure", remedy=_REMEDY)


def _not_a_failure(text: str) -> str:
    """Return why a text is not a reply that refuses or defers. Empty: it is one.

    Words without a code are one where they say why a message failed.
    """
    codes = [int(match[1]) for line in re.split(r"\\n|\r?\n", text) if (match := _LINE.match(line))]
    if codes:
        return "" if codes[-1] >= 400 else f"{codes[-1]} is not a code of a failure"
    if re.search(r"(?<![\w.])#?[45]\.\d{1,3}\.\d{1,3}(?![\w.])|(?<![\w.])[45]\d\d(?![\w.])", text):
        return ""
    return "" if find_evidence(clean(text)) else "it has no code"


def _unclassified(text: str, problem: str) -> ClassifiedReply:
    return ClassifiedReply(
        reply=text,
        cause=NOT_A_FAILURE,
        suppresses=False,
        pauses=None,
        fault=None,
        outcome=NOT_A_FAILURE,
        confidence=Confidence.LOW,
        rule=problem,
        reason=f"This is not a reply of a failure: {problem}.",
    )


def _print_one(one: ClassifiedReply) -> None:
    for name, value in one.as_json().items():
        print_line(f"{name + ':':<12}", str(value) if value is not None else "-")


def _lines(stream: Iterable[str]) -> Iterator[str]:
    return (line.rstrip("\r\n") for line in stream if line.strip())


def _classify(text: str, phase: Phase, provider: str, speaker: Speaker) -> ClassifiedReply:
    reply = parse_reply_text(text, phase)
    said = classify(
        Statement(
            text=reply.text,
            code=reply.code,
            status=reply.enhanced,
            phase=phase if phase in _IN_TRANSACTION else None,
            speaker=speaker,
            provider=provider,
        )
    )
    outcome = classify_reply(reply, deferrals=0, speaker=speaker, provider=provider)
    return ClassifiedReply(
        reply=text,
        cause=said.cause,
        suppresses=outcome.suppress,
        pauses=outcome.pause,
        fault=outcome.blame,
        outcome=outcome.verdict,
        confidence=said.confidence,
        rule=said.rule,
        reason=said.reason,
    )


def parse_reply_text(text: str, phase: Phase) -> Reply:
    r"""Return the reply that a text writes down, its lines separated by line breaks or by ``\n`` as two characters.

    A text without a reply code (RFC 5321 §4.2) gets the one that fits its enhanced code, else 550.
    """
    code: int | None = None
    lines: list[str] = []
    for line in re.split(r"\\n|\r?\n", text):
        match = _LINE.match(line)
        if match is not None:
            code = code or int(match[1])
        lines.append(match[2] if match is not None else line)
    if code is None:
        code = 450 if re.match(r"\s*#?4\.\d", text) else 550
    return parse_reply(phase, code, [line.lstrip() for line in lines])
