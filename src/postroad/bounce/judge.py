"""What a report means for whoever it is about: a pure function, its rules a table that ships with the package.

An unrelated mail, an automatic reply and the sender's own fault never count against a recipient, and neither does a
failure whose reason nobody gives: only a rule of `verdicts.toml` says *hard*.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cache
from typing import assert_never

import msgspec
from msgspec import Struct

from postroad.bounce.report import Action, Kind, Report, Reported
from postroad.bounce.tables import read_table


class Verdict(StrEnum):
    """What a mail that came back means for one recipient."""

    HARD = "hard"  # the mailbox is not there
    SOFT = "soft"  # it is, and did not take the mail
    BLOCK = "block"  # the sender was refused, whoever the recipient
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    AUTO_REPLY = "auto-reply"
    CHALLENGE = "challenge"
    UNRELATED = "unrelated"
    UNREADABLE = "unreadable"  # not judged: reading it passed a limit


class Judgement(Struct, frozen=True, kw_only=True):
    """The verdict on one recipient, and the rule that gave it. ``final``: nothing more is tried for this mail."""

    reported: Reported
    verdict: Verdict
    rule: str
    final: bool = True


class Rule(Struct, frozen=True, kw_only=True):
    """One row of `verdicts.toml`. All that it names must hold."""

    name: str
    verdict: Verdict
    example: str
    status: str | None = None
    codes: frozenset[int] = frozenset()
    phrases: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    at_rcpt: bool = False

    def fits(self, status: str | None, code: int | None, said: str) -> bool:
        """Whether it decides on this status, reply code, and text in lower case."""
        if self.codes and code not in self.codes:
            return False
        if self.status is not None and re.fullmatch(self.status, status or "") is None:
            return False
        if self.phrases and not any(phrase in said for phrase in self.phrases):
            return False
        return not any(phrase in said for phrase in self.unless)


@cache
def rules() -> tuple[Rule, ...]:
    """The rules, as shipped, in order."""
    return msgspec.convert(read_table("verdicts.toml")["rule"], tuple[Rule, ...])


def judge(report: Report) -> tuple[Judgement, ...]:
    """Judge every recipient of a report. There is at least one, be it without an address."""
    recipients = report.recipients or (Reported(address=None),)
    return tuple(_judge_one(report, one) for one in recipients)


def _judge_one(report: Report, one: Reported) -> Judgement:
    match report.kind:
        case Kind.DSN | Kind.BOUNCE:
            return _judge_failure(one)
        case Kind.FEEDBACK:
            verdict, rule = _FEEDBACK.get(report.feedback_type, (Verdict.COMPLAINT, "feedback report"))
        case Kind.AUTO_REPLY:
            verdict, rule = Verdict.AUTO_REPLY, report.format
        case Kind.CHALLENGE:
            verdict, rule = Verdict.CHALLENGE, report.format
        case Kind.DISPOSITION:
            verdict, rule = Verdict.UNRELATED, "receipt"
        case Kind.OTHER | Kind.REPLY:
            verdict, rule = Verdict.UNRELATED, report.format
        case Kind.UNREADABLE:
            verdict, rule = Verdict.UNREADABLE, report.format
        case other:
            assert_never(other)
    return Judgement(reported=one, verdict=verdict, rule=rule)


_FEEDBACK = {
    # RFC 5965 §7.3, RFC 6430, RFC 6591. A failed authentication tells of us, or of somebody who uses our name.
    "not-spam": (Verdict.UNRELATED, "feedback report: not spam"),
    "auth-failure": (Verdict.BLOCK, "feedback report: authentication failed"),
    "opt-out": (Verdict.UNSUBSCRIBE, "feedback report: opt-out"),
    "opt-out-list": (Verdict.UNSUBSCRIBE, "feedback report: opt-out"),
}


def _judge_failure(one: Reported) -> Judgement:
    match one.action:
        case Action.DELIVERED | Action.RELAYED | Action.EXPANDED:
            return Judgement(reported=one, verdict=Verdict.UNRELATED, rule=f"{one.action}, not failed")
        case Action.DELAYED:
            # RFC 3464 §2.3.3: it is tried on, and what comes of it is told by another mail, or by none.
            return Judgement(reported=one, verdict=Verdict.SOFT, rule="delayed", final=False)
        case Action.FAILED | None:
            verdict, rule = decide(one)
            return Judgement(reported=one, verdict=verdict, rule=rule)
        case other:
            assert_never(other)


def decide(one: Reported) -> tuple[Verdict, str]:
    """Verdict on a failure, and the name of the rule, from its status, its reply code and what was said of it."""
    words, status = one.diagnostic.lower(), one.status
    temporary = (status or str(one.reply_code or "5"))[0] == "4"
    for rule in rules():
        if rule.fits(status, one.reply_code, words):
            if rule.verdict is Verdict.HARD and temporary:
                return Verdict.SOFT, f"{rule.name}, for now"
            if rule.at_rcpt and not (one.at_rcpt or (status or "").startswith("5.1.")):
                return Verdict.SOFT, f"{rule.name}, it seems"
            return rule.verdict, rule.name
    if status is not None and status[0] == "2":
        return Verdict.UNRELATED, "a status of success"
    return Verdict.SOFT, "refused for now" if temporary else "refused without a reason"
