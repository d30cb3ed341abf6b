"""Accuracy of the bounce classifier on published, labelled mails, compared with flufl.bounce alone.

The mails are in the folder that POSTROAD_CORPORA names. `tests/conformance` holds each of them to the same measure.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

from flufl.bounce import all_failures

from benchmarks.figures import Figure, Measure, alone, compared
from postroad.bounce.classify import BounceClass
from postroad.bounce.explain import ExplainedMail, explain
from postroad.bounce.mail_worker import parse_stored
from postroad.bounce.mbox import mails_in
from postroad.bounce.mime import parse_message
from postroad.bounce.report import Envelope

SENDERS_FAULT = frozenset(
    {
        *("authfailure", "badreputation", "blocked", "contenterror", "norelaying", "notcompliantrfc"),
        *("policyviolation", "ratelimited", "rejected", "requireptr", "securityerror", "spamdetected"),
        *("speeding", "toomanyconn", "virusdetected"),
    }
)
"""Reasons, as the labels name them, for which no recipient may be suppressed."""
NO_BOUNCE = frozenset({"vacation", "delivered"})
SUPPRESSING = frozenset({BounceClass.HARD, BounceClass.COMPLAINT, BounceClass.UNSUBSCRIBE})
RETURNS_A_BOUNCE = frozenset({"rfc3464-26.eml"})
"""What it returns is a bounce itself, which says that a mailbox does not exist."""
HIDES_RECIPIENT = frozenset({"arf-11.eml", "arf-15.eml"})
"""Feedback reports that name no recipient, neither in a field nor in what they return."""

CORRECTED = {
    **dict.fromkeys(
        ("lhost-activehunter-02.eml", "lhost-apachejames-01.eml", "lhost-amazonses-02.eml"), "user unknown"
    ),
    **dict.fromkeys(("lhost-amazonworkmail-02.eml", "lhost-messagingserver-03.eml"), "user unknown, with a vague code"),
    **dict.fromkeys(("lhost-exchange2003-04.eml", "rfc3464-42.eml"), "recipient not found, does not exist"),
    **dict.fromkeys(("lhost-mcafee-04.eml", "lhost-mcafee-05.eml", "lhost-mxlogic-03.eml"), "no such user"),
    **dict.fromkeys(("lhost-x1-01.eml", "lhost-x1-02.eml", "rfc3464-57.eml"), "user unknown"),
    **dict.fromkeys(("lhost-x2-01.eml", "lhost-zoho-03.eml"), "no account, invalid address"),
}
"""Mails labelled *not hard* whose own words say that the mailbox does not exist."""
CORRECTED_RECIPIENTS = {("lhost-x2-02.eml", 0), ("lhost-x2-02.eml", 2), ("lhost-zoho-02.eml", 0), ("rfc3464-35.eml", 2)}
"""The same of single recipients of a mail, by their place in it."""

MEASURES = [
    Measure(name="hard or not hard, right, %", bar=97, at_least=True),
    Measure(name="addresses found, %", bar=99, at_least=True),
    Measure(name="suppressions from mail that is no bounce or the sender's fault", bar=0),
    Measure(name="mails/s of one process", bar=1000, at_least=True),
    Measure(name="hard or not hard, right, compared with flufl.bounce alone, %", bar=1, at_least=True),
    Measure(name="addresses found, compared with flufl.bounce alone, %", bar=1, at_least=True),
    Measure(name="suppressions that should not be, of labelled mail, compared with flufl.bounce alone", bar=0),
]
PEER = "flufl.bounce"


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One recipient of one labelled mail."""

    file: str
    number: int
    reason: str
    hard: bool


def corpora() -> Path | None:
    """Folder of the conformance data, if it is named."""
    named = os.environ.get("POSTROAD_CORPORA")
    return Path(named) if named else None


def sisimai_labels(root: Path) -> list[Labelled]:
    """Every labelled recipient of bounces-sisimai."""
    labels = json.loads((root / "bounces-sisimai/labels.json").read_text("utf-8"))
    return [
        Labelled(file=file, number=number, reason=row["reason"], hard=row["hardbounce"] or _is_corrected(file, number))
        for file, rows in sorted(labels.items())
        for number, row in enumerate(rows)
    ]


def _is_corrected(file: str, number: int) -> bool:
    return file in CORRECTED or (file, number) in CORRECTED_RECIPIENTS


def sisimai_mails(root: Path) -> dict[str, list[ExplainedMail]]:
    """Every mail of bounces-sisimai, by its file, as we read it."""
    read: dict[str, list[ExplainedMail]] = {}
    for file, raw in mails_in(root / "bounces-sisimai/mail"):
        read.setdefault(file.name, []).append(explain(file.name, raw, Envelope(), None, read=parse_stored))
    return read


def flufl_addresses(root: Path) -> dict[str, set[str]]:
    """The addresses that failed, by file of flufl-bounce; of most mails one."""
    labels = json.loads((root / "flufl-bounce/labels.json").read_text("utf-8"))["labels"]
    return {file: {address.lower() for row in rows for address in row["addresses"]} for file, rows in labels.items()}


def flufl_mail(root: Path, file: str) -> bytes:
    return (root / "flufl-bounce/data" / file).read_bytes()


def returned_messages(root: Path) -> Iterator[tuple[str, bytes]]:
    """What the bounces return of the messages that were sent: mails of every sort, hardly one of them a bounce."""
    for folder in ("bounces-sisimai/mail", "flufl-bounce/data", "kumomta-dsn-arf"):
        for file, raw in mails_in(root / folder):
            for part in parse_message(raw).walk():
                report = "multipart/report" in part.text[:2000].lower() or file.name in RETURNS_A_BOUNCE
                if part.content_type in ("message/rfc822", "text/rfc822-headers") and not report:
                    yield file.name, part.octets


def verdict_of(mails: Sequence[ExplainedMail], number: int) -> tuple[BounceClass, str | None] | None:
    """Verdict on the recipient of this number in a file, and their address. None: there is no such one."""
    recipients = [one for mail in mails for one in mail.recipients]
    return (recipients[number].verdict, recipients[number].address) if number < len(recipients) else None


def found_addresses(raw: bytes) -> set[str]:
    """Addresses that failed, as we find them; none where it is no bounce."""
    explained = explain("", raw, Envelope(), None, read=parse_stored)
    bounced = (BounceClass.HARD, BounceClass.SOFT, BounceClass.BLOCK, BounceClass.COMPLAINT)
    return {one.address.lower() for one in explained.recipients if one.address and one.verdict in bounced}


def flufl_alone(raw: bytes) -> tuple[set[str], set[str]]:
    """What flufl.bounce finds: addresses that failed for now, and for good. Nothing where it raises."""
    try:
        temporary, permanent = all_failures(message_from_bytes(raw))
    except Exception:
        return set(), set()
    return (
        {address.decode("utf-8", "replace").lower() for address in temporary},
        {address.decode("utf-8", "replace").lower() for address in permanent},
    )


def judge(root: Path, seconds: float) -> list[Figure]:
    """Return the figures: ours alone, then compared with those of flufl.bounce."""
    labels, mails, addresses = sisimai_labels(root), sisimai_mails(root), flufl_addresses(root)
    right = found = wrongly = 0
    for label in labels:
        given = verdict_of(mails[label.file], label.number)
        right += (given is not None and given[0] is BounceClass.HARD) == label.hard
        found += given is not None and given[1] is not None and label.file not in HIDES_RECIPIENT
        wrongly += _innocent(label) and given is not None and given[0] in SUPPRESSING
    for file, expected in addresses.items():
        found += _same(found_addresses(flufl_mail(root, file)), expected)
    returned = sum(
        any(one.verdict in SUPPRESSING for one in explain("", raw, Envelope(), None, read=parse_stored).recipients)
        for _, raw in returned_messages(root)
    )
    asked = len(labels) - sum(label.file in HIDES_RECIPIENT for label in labels) + len(addresses)
    ours = [100 * right / len(labels), 100 * found / asked, float(wrongly)]
    values = [*ours[:2], float(wrongly + returned), _speed(root, seconds)]
    figures = [alone(measure, value) for measure, value in zip(MEASURES[:4], values, strict=True)]
    theirs = _flufl(root, labels, addresses, asked)
    return figures + [
        compared(measure, mine, PEER, its) for measure, mine, its in zip(MEASURES[4:], ours, theirs, strict=True)
    ]


def _innocent(label: Labelled) -> bool:
    """Whether it must not suppress an address."""
    return label.reason in SENDERS_FAULT | NO_BOUNCE


def _same(found: set[str], expected: set[str]) -> bool:
    """Whether every expected address was found; where none is expected, none."""
    return expected <= found if expected else not found


def _flufl(root: Path, labels: Sequence[Labelled], addresses: dict[str, set[str]], asked: int) -> list[float]:
    """What flufl.bounce alone reaches, in the same measures, where what it calls permanent would be suppressed."""
    files = {label.file: (root / "bounces-sisimai/mail" / label.file).read_bytes() for label in labels}
    alone_ = {file: flufl_alone(raw) for file, raw in files.items()}
    right = sum(bool(alone_[label.file][1]) == label.hard for label in labels)
    found = sum(any(alone_[label.file]) for label in labels if label.file not in HIDES_RECIPIENT)
    found += sum(_same(set().union(*flufl_alone(flufl_mail(root, file))), want) for file, want in addresses.items())
    wrongly = sum(bool(alone_[label.file][1]) for label in labels if _innocent(label))
    return [100 * right / len(labels), 100 * found / asked, float(wrongly)]


def _speed(root: Path, seconds: float) -> float:
    """Mails read and judged in a second of processor time, over all of bounces-sisimai, again and again."""
    raws = [raw for _, raw in mails_in(root / "bounces-sisimai/mail")]
    done, begin = 0, time.process_time()
    while time.process_time() - begin < seconds:
        for raw in raws:
            explain("", raw, Envelope(), None, read=parse_stored)
        done += len(raws)
    return done / (time.process_time() - begin)
