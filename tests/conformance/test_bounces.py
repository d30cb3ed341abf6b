"""Published bounces, reports and vacation mails: classified as labelled, except for those listed here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import bounce
from benchmarks.bounce import NO_BOUNCE, SENDERS_FAULT, SUPPRESSING, Labelled
from postroad.bounce.classify import BounceClass
from postroad.bounce.explain import ExplainedMail, explain
from postroad.bounce.mail_worker import parse_stored
from postroad.bounce.mbox import mails_in
from postroad.bounce.mime import parse_message
from postroad.bounce.parse import parse_mail
from postroad.bounce.report import Envelope, MailKind

JUDGED_OTHERWISE = {
    "lhost-exim-31.eml": "it says that the account may not exist, or may be blacklisted",
    "lhost-opensmtpd-12.eml": "it says that the mail is delayed, and tried for seven days",
    "lhost-postfix-46.eml": "`Recipient address rejected.` gives no reason",
    "rhost-aol-06.eml": "lhost-postfix-17 says the same, and is labelled not hard",
    "rhost-messagelabs-03.eml": "`542 Rejected` gives no reason",
}
"""Mails of bounces-sisimai that are not classified as labelled, and why."""

OTHER_ADDRESSES = {
    "sendmail_01.txt": "an address and the one it was expanded from: the recipient is one, and we wrote to the latter",
    "simple_20.txt": "its subject is that of an answer, and no header says that a server wrote it",
    "simple_42.txt": "its Final-Recipient is shortened with dots, which is no address, but is what it says",
    "simple_43.txt": "it names nobody; we take whom the returned message was to",
}
"""Mails of flufl-bounce in which other addresses are found, and why."""


def _root() -> Path:
    root = bounce.corpora()
    if root is None:
        pytest.skip("POSTROAD_CORPORA does not name the folder of conformance data")
    return root


def _cases(kind: str) -> list[Any]:
    root = bounce.corpora()
    if root is None:
        skip = pytest.mark.skip(reason="POSTROAD_CORPORA does not name the folder of conformance data")
        return [pytest.param(None, marks=skip, id=kind)]
    match kind:
        case "labels":
            return [pytest.param(one, id=f"{one.file}-{one.number}") for one in bounce.sisimai_labels(root)]
        case "addresses":
            return [pytest.param(one, id=one[0]) for one in bounce.flufl_addresses(root).items()]
        case _:
            return [pytest.param(path, id=path.name) for path in sorted((root / "kumomta-dsn-arf").rglob("*.eml"))]


@pytest.fixture(scope="module")
def sisimai() -> dict[str, list[ExplainedMail]]:
    return bounce.sisimai_mails(_root())


@pytest.mark.parametrize("label", _cases("labels"))
def test_a_recipient_is_judged_as_labelled(sisimai: dict[str, list[ExplainedMail]], label: Labelled) -> None:
    given = bounce.verdict_of(sisimai[label.file], label.number)
    assert given is not None
    verdict, address = given
    if label.file not in bounce.HIDES_RECIPIENT:
        assert address
    assert ((verdict is BounceClass.HARD) == label.hard) is (label.file not in JUDGED_OTHERWISE)
    if label.reason in SENDERS_FAULT | NO_BOUNCE:
        assert verdict not in SUPPRESSING


@pytest.mark.parametrize("case", _cases("addresses"))
def test_the_addresses_that_failed_are_found(case: tuple[str, set[str]]) -> None:
    file, expected = case
    found = bounce.found_addresses(bounce.flufl_mail(_root(), file))
    assert (expected <= found if expected else not found) is (file not in OTHER_ADDRESSES)


@pytest.mark.parametrize("path", _cases("reports"))
def test_every_field_of_a_report_is_parsed(path: Path) -> None:
    """Yield name and value of each field of the machine-readable part, of the message and of the recipients."""
    raw = path.read_bytes()
    report = parse_mail(raw)
    parsed = [report.fields, *(one.fields for one in report.recipients)]
    types = ("message/delivery-status", "message/feedback-report")
    [part] = [part for part in parse_message(raw).walk() if part.content_type in types]
    assert report.kind is (MailKind.DSN if part.content_type == types[0] else MailKind.FEEDBACK)
    unfolded = part.text.replace("\n ", " ").replace("\n\t", " ")
    lines = [line.partition(":") for line in unfolded.splitlines() if ":" in line]
    assert lines
    for name, _, value in lines:
        plain = " ".join(value.split())
        assert any(plain in fields.get(name.strip().lower(), "") for fields in parsed), name
    for one in report.recipients:
        assert report.kind is MailKind.FEEDBACK or (one.address and one.action and one.status)


def test_what_a_bounce_returns_is_not_taken_for_one() -> None:
    root = _root()
    returned = list(bounce.returned_messages(root))
    assert len(returned) > 200
    for file, raw in returned:
        verdicts = {one.verdict for one in explain(file, raw, Envelope(), None, read=parse_stored).recipients}
        assert not verdicts & SUPPRESSING, file


def test_the_bars_are_reached() -> None:
    figures = bounce.judge(_root(), 0.2)
    missed = [figure for figure in figures if not figure.ok and "mails/s" not in figure.measure]
    assert missed == []


def test_the_corpora_are_all_there() -> None:
    root = _root()
    assert len(list(mails_in(root / "bounces-sisimai/mail"))) == 292  # one file is a mailbox of two
    assert len(bounce.flufl_addresses(root)) == 115
    assert len(_cases("reports")) == 11
